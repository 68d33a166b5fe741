"""The billing table: from the vendor's files to exact rows in DuckDB, with the ledger."""
