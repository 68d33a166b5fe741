"""The clients: object stores, the staging folder, DuckDB, the Parquet lake, warehouses."""
