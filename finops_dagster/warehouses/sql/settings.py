"""The settings of the warehouse `sql`: any SQL database by SQLAlchemy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from finops_dagster.settings_table import LocalPath, SettingsTable


class SqlSettings(SettingsTable):
    """A database and a dataset in it: a schema, or what the database has instead.

    `destination` is the kind of database, by its name in dlt, with which earlier releases loaded.
    `credentials` are a URL or its parts; secrets come from the environment, as
    DESTINATION__<DESTINATION>__CREDENTIALS__PASSWORD. `working_dir` has the lock files of loads.
    `engine_kwargs` are arguments of SQLAlchemy's `create_engine`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    destination: str
    dataset: str = "finops"
    working_dir: LocalPath = Path("data/dlt")
    credentials: str | dict[str, Any] = Field(default_factory=dict)
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _secret_advice(self, name: str) -> str:
        variable = f"DESTINATION__{self.destination}__{name.replace('.', '__')}".upper()
        return f"give it in the environment, as {variable}"
