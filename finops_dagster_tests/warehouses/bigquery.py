"""The suite's BigQuery: the project's test server, read by Google's client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.cloud.bigquery import SchemaField, Table

from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.warehouses.adapters import Adapter, Row


class BigQuery(Adapter):
    """One dataset, `acme.finops`."""

    backend = "bigquery"
    reconciles_before_commit = False
    keeps_null_maps = False
    docs_section = "BigQuery"

    def __init__(self, server: BigQueryServer) -> None:
        self.settings = {"project_id": "acme", "api_endpoint": server.url}
        self._client = server.client("acme")

    def query(self, sql: str) -> list[Row]:
        return [tuple(row.values()) for row in self._client.query_and_wait(sql)]

    def reset(self) -> None:
        for dataset in self._client.list_datasets():
            for table in self._client.list_tables(dataset.dataset_id):
                self._client.delete_table(table)

    def tables(self) -> set[str]:
        return {table.table_id for table in self._client.list_tables("finops")}

    def columns(self, table: str) -> dict[str, str]:
        schema = self._client.get_table(f"acme.finops.{table}").schema
        return {field.name: field.field_type for field in schema}

    def create_table(self, table: str, columns: dict[str, str]) -> None:
        self._client.create_dataset("finops", exists_ok=True)
        fields = [SchemaField(name, native_type) for name, native_type in columns.items()]
        self._client.create_table(Table(f"acme.finops.{table}", fields))

    def quoted_name(self, name: str) -> str:
        return f"`acme.finops.{name}`"

    def cell(self, column: str, _native_type: str) -> str:
        return f"`{column}`"

    def value(self, value: Any, _native_type: str) -> Any:
        """Return an array of keys and values as a map."""
        is_map = isinstance(value, list)
        return {entry["key"]: entry["value"] for entry in value} if is_map else value


@contextmanager
def running_adapter() -> Iterator[BigQuery]:
    """Provide a server of its own."""
    with BigQueryServer() as server:
        yield BigQuery(server)
