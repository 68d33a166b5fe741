"""The chain of one export, one file a stage: manifest, staged files, table, Parquet, warehouse."""

from typing import Final

STAGES: Final = ("manifest", "staged_files", "billing_table", "parquet", "warehouse_table")
