"""The database's URL, from settings and environment, and the destinations that are refused.

A destination is dlt's name of a kind of database.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from finops_dagster.billing.errors import BillError
from finops_dagster.settings_table import SettingsError
from finops_dagster.warehouses.sql.settings import SqlSettings

# Destinations have the names of dlt, by which earlier releases loaded.
_DRIVERS = {
    "fabric": "mssql+pyodbc",
    "mssql": "mssql+pyodbc",
    "postgres": "postgresql+psycopg",
    "redshift": "redshift+psycopg2",
    "sqlalchemy": "",
    "synapse": "mssql+pyodbc",
}
_NO_TRANSACTIONS = "has no transactions, so that no month can be replaced in one step"
_OWN_BACKEND = 'has a backend of its own: set backend = "{}"'
_REFUSAL_REASONS = {
    **dict.fromkeys(
        "athena clickhouse databricks dremio dummy filesystem hive iceberg lance lancedb qdrant "
        "weaviate".split(),
        f"{_NO_TRANSACTIONS}; choose one with transactions",
    ),
    "bigquery": _OWN_BACKEND.format("bigquery"),
    "duckdb": f"{_OWN_BACKEND.format('duckdb')} and [database.duckdb] warehouse_path",
    "ducklake": "is not supported by SQLAlchemy; add the Parquet lake to it instead",
    "motherduck": "is not supported by SQLAlchemy; let it read the Parquet lake instead",
    "snowflake": _OWN_BACKEND.format("snowflake"),
}


def check_destination(settings: SqlSettings) -> None:
    """Raise SettingsError for a destination that cannot be used, and for an unknown setting.

    Only the name of the destination and the names of the settings are checked.
    """
    name = settings.destination
    if name in _REFUSAL_REASONS:
        raise SettingsError(f"[database.sql]: destination {name} {_REFUSAL_REASONS[name]}")
    if name not in _DRIVERS:
        raise SettingsError(
            f"[database.sql]: there is no destination {name!r}; choose one of "
            f"{', '.join(_DRIVERS)}; sqlalchemy takes the URL of any other database"
        )
    if unknown := sorted(settings.model_extra or {}):
        raise SettingsError(
            f"[database.sql]: destination {name} has no setting {', '.join(unknown)}; host, port, "
            "database and username belong in [database.sql.credentials]"
        )


def database_url(settings: SqlSettings) -> sa.URL:
    """Return the URL of the database; the environment overrides the settings.

    DESTINATION__<DESTINATION>__CREDENTIALS is a URL; with a suffix, such as `__PASSWORD`, it is one
    part. The result may have a password. For SQLite it is the URL of the dataset's file,
    `acme__finops.db` beside `acme.db`. Raises BillError if there is no address or the port is no
    number, and sqlalchemy.exc.ArgumentError for an invalid URL.
    """
    prefix = f"DESTINATION__{settings.destination.upper()}__CREDENTIALS"
    credentials = os.environ.get(prefix, settings.credentials)
    parts: dict[str, Any] = {"drivername": _DRIVERS[settings.destination]}
    if isinstance(credentials, str):
        url = sa.make_url(credentials)
        parts = {**url.translate_connect_args(), "drivername": url.drivername, "query": url.query}
    else:
        parts |= credentials
    for variable, value in os.environ.items():
        if variable.startswith(f"{prefix}__"):
            parts[variable.removeprefix(f"{prefix}__").lower()] = value
    if not parts["drivername"] or not any(parts.get(key) for key in ("host", "database", "query")):
        raise BillError(
            "[database.sql]: credentials do not say where the database is; set credentials to a "
            "URL, or to a table with host and database (for sqlalchemy also drivername), or set "
            f"{prefix} in the environment"
        )
    url_parts = ("drivername", "username", "password", "host", "port", "database")
    query = {key: str(v) for key, v in parts.items() if key not in (*url_parts, "query")}
    query = {**dict(parts.get("query") or {}), **query}
    address = {key: parts[key] for key in url_parts if key in parts}
    if "port" in address:
        try:
            address["port"] = int(address["port"])
        except ValueError:
            raise BillError(
                f"[database.sql]: the port in credentials is {address['port']!r}; set a number"
            ) from None
    url = sa.URL.create(**address, query=query)
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        dataset_file = path.with_name(f"{path.stem}__{settings.dataset}{path.suffix}")
        url = url.set(database=str(dataset_file))
    return url
