"""The vendor's files become one exact DuckDB table: readers, casts, loading, the ledger."""
