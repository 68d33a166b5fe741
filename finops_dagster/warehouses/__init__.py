"""Where months end: a folder a warehouse, whose client is imported only when it is opened."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from finops_dagster.settings_table import SettingsError, SettingsTable
from finops_dagster.warehouses import bigquery, duckdb, postgresql, snowflake, sql

if TYPE_CHECKING:
    from finops_dagster.warehouses.base import Warehouse

# Each is a folder with `Settings`, its table of the settings file, and with a module `warehouse`
# that alone imports its client.
WAREHOUSES: dict[str, type[SettingsTable]] = {
    "duckdb": duckdb.Settings,
    "bigquery": bigquery.Settings,
    "postgresql": postgresql.Settings,
    "snowflake": snowflake.Settings,
    "sql": sql.Settings,
}


class Chosen(Protocol):
    """The settings of the one warehouse in which months end."""

    @property
    def backend(self) -> str:
        """Its name in WAREHOUSES."""
        ...

    @property
    def warehouse(self) -> SettingsTable:
        """Its table."""
        ...


def open_warehouse(settings: Chosen) -> Warehouse:
    """Return the warehouse that the settings choose. Makes no connection yet. Raises SettingsError
    where its client is not installed, or cannot do what the settings ask for."""
    backend, table = settings.backend, settings.warehouse
    try:
        chosen = import_module(f"{__name__}.{backend}.warehouse")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"backend is {backend}, whose client {error.name} is not installed: "
            f'pip install "finops-dagster[{backend}]"'
        ) from error
    warehouse: Warehouse = chosen.open_warehouse(table)
    return warehouse
