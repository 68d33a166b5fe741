"""Where a database is, from the settings and the environment; and which kinds cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from finops_dagster.billing.errors import BillError
from finops_dagster.settings_table import SettingsError
from finops_dagster.warehouses.sql.settings import SqlSettings

_DRIVERS = {
    "fabric": "mssql+pyodbc",
    "mssql": "mssql+pyodbc",
    "postgres": "postgresql+psycopg",
    "redshift": "redshift+psycopg2",
    "sqlalchemy": "",
    "synapse": "mssql+pyodbc",
}
_NO_TRANSACTIONS = "has no transactions, so a month could not be replaced in one step"
_OWN_BACKEND = 'has a backend of its own: set backend = "{}"'
_REFUSAL_REASONS = {
    **dict.fromkeys(
        "athena clickhouse databricks dremio dummy filesystem hive iceberg lance lancedb qdrant "
        "weaviate".split(),
        f"{_NO_TRANSACTIONS}; take one that has",
    ),
    "bigquery": _OWN_BACKEND.format("bigquery"),
    "duckdb": f"{_OWN_BACKEND.format('duckdb')} and [database.duckdb] warehouse_path",
    "ducklake": "is no database that SQLAlchemy connects to; the Parquet lake can be added to it",
    "motherduck": "is no database that SQLAlchemy connects to; let it read the Parquet lake",
    "snowflake": _OWN_BACKEND.format("snowflake"),
}


def check_destination(settings: SqlSettings) -> None:
    """Raise SettingsError for a destination that cannot replace a month, or has no such setting."""
    name = settings.destination
    if name in _REFUSAL_REASONS:
        raise SettingsError(f"[database.sql]: destination {name} {_REFUSAL_REASONS[name]}")
    if name not in _DRIVERS:
        raise SettingsError(
            f"[database.sql]: there is no destination {name!r}; it is {', '.join(_DRIVERS)}, of "
            "which sqlalchemy takes the URL of any other database"
        )
    if unknown := sorted(settings.model_extra or {}):
        raise SettingsError(
            f"[database.sql]: destination {name} has no setting {', '.join(unknown)}"
        )


def database_url(settings: SqlSettings) -> sa.URL:
    """Return the address of the database; what the environment says of it wins over the settings.
    Raises BillError where there is none, sqlalchemy.exc.ArgumentError for one that is no URL.

    A dataset of SQLite is a file beside: `acme__finops.db`.
    """
    prefix = f"DESTINATION__{settings.destination.upper()}__CREDENTIALS"
    given = os.environ.get(prefix, settings.credentials)
    parts: dict[str, Any] = {"drivername": _DRIVERS[settings.destination]}
    if isinstance(given, str):
        url = sa.make_url(given)
        parts = {**url.translate_connect_args(), "drivername": url.drivername, "query": url.query}
    else:
        parts |= given
    for variable, value in os.environ.items():
        if variable.startswith(f"{prefix}__"):
            parts[variable.removeprefix(f"{prefix}__").lower()] = value
    if not parts["drivername"] or not any(parts.get(key) for key in ("host", "database", "query")):
        raise BillError(
            "[database.sql.credentials] does not say where the database is; give a URL or its "
            f"drivername, host, database, ... there, or as {prefix}__... in the environment"
        )
    known = ("drivername", "username", "password", "host", "port", "database", "query")
    query = {key: str(value) for key, value in parts.items() if key not in known}
    query = {**dict(parts.get("query") or {}), **query}
    of_url = {key: parts[key] for key in known[:-1] if key in parts}
    if "port" in of_url:
        of_url["port"] = int(of_url["port"])
    url = sa.URL.create(**of_url, query=query)
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        beside = path.with_name(f"{path.stem}__{settings.dataset}{path.suffix}")
        url = url.set(database=str(beside))
    return url
