"""The settings of DuckDB: the project's own file, and the warehouse file for readers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from finops_dagster.settings_table import LocalPath, LocalPathText, SettingsTable, pattern_validator
from finops_dagster.tables.database import BillingDatabase, DuckDB


class DuckDBSettings(SettingsTable):
    """The project's own DuckDB file, and the warehouse file of the backend `duckdb`.

    With `{export}` or `{month}` in `database_path` each export or month has its own file. Without
    `warehouse_path`, the Parquet files are the last stage. What exceeds `memory_limit` goes to
    `temp_dir`, by default a folder beside the file. Without `threads`, all cores are used.
    """

    database_path: LocalPathText = "data/finops.duckdb"
    warehouse_path: LocalPathText | None = None
    memory_limit: Annotated[
        str,
        StringConstraints(strip_whitespace=True),
        pattern_validator(
            r"\d{1,7}(\.\d+)?\s*([KMGT]i?B)", "must be a number and a unit, such as 2GB"
        ),
    ] = "2GB"
    threads: int | None = Field(default=None, ge=1, le=1024)
    temp_dir: LocalPath | None = None
    lock_wait_seconds: int = Field(default=3600, ge=0, le=10**9)

    def billing_database(self) -> BillingDatabase:
        """Return the database of the billing tables; no file is opened."""
        return BillingDatabase(self.database_path, DuckDB.with_limits(self))

    @field_validator("database_path")
    @classmethod
    def _only_known_placeholders(cls, path: str) -> str:
        unknown = set(re.findall(r"{[^}]*}?", path)) - {"{export}", "{month}"}
        if unknown:
            raise ValueError(
                f"has {', '.join(sorted(unknown))}; use only {{export}} and {{month}} in braces"
            )
        return path

    @model_validator(mode="after")
    def _warehouse_is_a_file_of_its_own(self) -> Self:
        if self.warehouse_path is None:
            return self
        if re.search(r"[{}]", self.warehouse_path):
            raise ValueError(
                "warehouse_path is one file for all exports and months; remove the braces"
            )
        path = re.escape(str(Path(self.database_path).resolve()))
        database_paths = re.sub(r"\\{(export|month)\\}", "[^/]+", path)
        if re.fullmatch(database_paths, str(Path(self.warehouse_path).resolve())):
            raise ValueError("warehouse_path is database_path; give the warehouse another file")
        return self
