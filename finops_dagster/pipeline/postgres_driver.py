"""The driver of Dagster's event log in PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from finops_dagster.settings_table import SettingsError

_DRIVER = "postgresql+psycopg2"


def check_driver(config_file: Path) -> None:
    """Raise SettingsError if Dagster would open PostgreSQL by a driver that it cannot use.

    `config_file` is a `dagster.yaml`, which must exist. Where it names no driver, SQLAlchemy 2.1 or
    newer chooses psycopg 3, but dagster-postgres of Dagster 1.13 writes events in a way that only
    psycopg2 understands.
    """
    sqlalchemy = version("sqlalchemy")
    if tuple(map(int, sqlalchemy.split(".")[:2])) < (2, 1):
        return
    for remedy in _remedies(yaml.safe_load(config_file.read_text())):
        raise SettingsError(
            f"{config_file}: SQLAlchemy {sqlalchemy} chooses a driver for PostgreSQL with which "
            f"Dagster cannot write its event log; {remedy}"
        )


def _remedies(config: Any) -> Iterator[str]:
    """Yield what to change, for each of Dagster's storages that names no driver."""
    if not isinstance(config, dict):
        return
    database, url = config.get("postgres_db"), config.get("postgres_url")
    if isinstance(database, dict) and database.get("scheme", "postgresql") == "postgresql":
        yield f"add scheme: {_DRIVER} below postgres_db"
    url = os.environ.get(str(url.get("env"))) if isinstance(url, dict) else url
    if str(url).startswith("postgresql://"):
        yield f"let postgres_url begin with {_DRIVER}://"
    for value in config.values():
        yield from _remedies(value)
