"""A DuckDB file of one's own, for readers; its table has the keys of the chain's own file too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from finops_dagster.settings_table import LocalFile, LocalPath, SettingsTable


class DuckDBSettings(SettingsTable):
    """The DuckDB file; with `{month}` in its path each month has one of its own. `warehouse_path`
    is another, in which the months end where the backend is `duckdb`: without it at Parquet.
    `temp_dir` takes what `memory_limit` has no room for; without it, a folder beside the file."""

    database_path: LocalFile = "data/finops.duckdb"
    warehouse_path: LocalFile | None = None
    memory_limit: Annotated[
        str, StringConstraints(pattern=r"^\d{1,7}(\.\d+)?\s*([KMGT]i?B)$", strip_whitespace=True)
    ] = "2GB"
    threads: int | None = Field(default=None, ge=1, le=1024)
    temp_dir: LocalPath | None = None
    lock_wait_seconds: int = Field(default=3600, ge=0, le=10**9)

    @field_validator("database_path")
    @classmethod
    def _only_known_placeholders(cls, path: str) -> str:
        unknown = set(re.findall(r"{[^}]*}?", path)) - {"{export}", "{month}"}
        if unknown:
            raise ValueError(f"holds {', '.join(unknown)}; it may hold {{export}} and {{month}}")
        return path

    @model_validator(mode="after")
    def _warehouse_is_a_file_of_its_own(self) -> Self:
        if self.warehouse_path is None:
            return self
        if re.search(r"[{}]", self.warehouse_path):
            raise ValueError("warehouse_path is one file for all exports and months, without {}")
        path = re.escape(str(Path(self.database_path).resolve()))
        any_of_them = re.sub(r"\\{(export|month)\\}", "[^/]+", path)
        if re.fullmatch(any_of_them, str(Path(self.warehouse_path).resolve())):
            raise ValueError("warehouse_path is database_path; give the warehouse another file")
        return self
