"""The chain of one export, one file a stage: manifest, staged files, table, Parquet, warehouse."""
