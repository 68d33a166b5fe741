"""The lake: one Parquet file a month, whose metadata is the record of it."""
