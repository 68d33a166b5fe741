"""The suite's BigQuery: the project's own double, asked by Google's client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from google.cloud.bigquery import SchemaField, Table

from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.warehouses.adapters import Row, in_order


class BigQuery:
    """One dataset, `acme.finops`."""

    backend = "bigquery"
    environment: dict[str, str] = {}  # noqa: RUF012
    reconciles_before_commit = False
    keeps_null_maps = False
    section = "BigQuery"

    def __init__(self, server: BigQueryServer) -> None:
        self.settings = {"project_id": "acme", "api_endpoint": server.url}
        self._client = server.client("acme")

    def reset(self) -> None:
        for dataset in self._client.list_datasets():
            for table in self._client.list_tables(dataset.dataset_id):
                self._client.delete_table(table)

    def tables(self) -> set[str]:
        return {table.table_id for table in self._client.list_tables("finops")}

    def columns(self, table: str) -> dict[str, str]:
        schema = self._client.get_table(f"acme.finops.{table}").schema
        return {field.name: field.field_type for field in schema}

    def rows(self, table: str, columns: Sequence[str], month: str) -> list[Row]:
        names = ", ".join(f"`{name}`" for name in columns)
        found = self.query(
            f"SELECT {names} FROM `acme.finops.{table}` WHERE billing_month = DATE '{month}-01'"
        )
        return in_order([_map_or_value(value) for value in row] for row in found)

    def ledger(self, table: str) -> list[Any]:
        return self.query(
            "SELECT billing_period, manifest_id, row_count, state, error_message "
            f"FROM `acme.finops.{table}_loads` ORDER BY load_timestamp"
        )

    def take_out(self, table: str, month: str) -> None:
        self.query(f"DELETE FROM `acme.finops.{table}` WHERE billing_month = DATE '{month}-01'")

    def query(self, sql: str) -> list[Row]:
        return [tuple(row.values()) for row in self._client.query_and_wait(sql)]

    def make(self, table: str, columns: dict[str, str]) -> None:
        self._client.create_dataset("finops", exists_ok=True)
        fields = [SchemaField(name, kind) for name, kind in columns.items()]
        self._client.create_table(Table(f"acme.finops.{table}", fields))


@contextmanager
def started() -> Iterator[BigQuery]:
    """A server of its own."""
    with BigQueryServer() as server:
        yield BigQuery(server)


def _map_or_value(value: Any) -> Any:
    """A map is an array of its keys and values."""
    if isinstance(value, list):
        return {entry["key"]: entry["value"] for entry in value}
    return value
