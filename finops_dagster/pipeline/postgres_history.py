"""Dagster's history in PostgreSQL: with which driver SQLAlchemy reaches it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from finops_dagster.settings_table import SettingsError

_DRIVER = "postgresql+psycopg2"


def check_driver(instance: Path) -> None:
    """Refuse a `dagster.yaml` that leaves the driver to SQLAlchemy: since 2.1 it takes psycopg 3,
    and dagster-postgres of Dagster 1.13 writes events as only psycopg2 does. Raises
    SettingsError."""
    sqlalchemy = version("sqlalchemy")
    if tuple(int(number) for number in sqlalchemy.split(".")[:2]) < (2, 1):
        return
    for storage in _storages(yaml.safe_load(instance.read_text())):
        remedy = _remedy(storage)
        if remedy is not None:
            raise SettingsError(
                f"{instance}: SQLAlchemy {sqlalchemy} would take a driver for PostgreSQL that "
                f"Dagster cannot write its history with; {remedy}"
            )


def _storages(config: Any) -> Iterator[dict[str, Any]]:
    """What is configured of PostgreSQL, in whichever of Dagster's storages."""
    if isinstance(config, dict):
        if {"postgres_db", "postgres_url"} & config.keys():
            yield config
        for value in config.values():
            yield from _storages(value)


def _remedy(storage: dict[str, Any]) -> str | None:
    database, url = storage.get("postgres_db"), storage.get("postgres_url")
    if isinstance(database, dict) and database.get("scheme", "postgresql") == "postgresql":
        return f"add scheme: {_DRIVER} below postgres_db"
    if isinstance(url, dict):
        url = os.environ.get(str(url.get("env")), "")
    if str(url).startswith("postgresql://"):
        return f"let postgres_url begin with {_DRIVER}://"
    return None
