"""The datasets and tables of the BigQuery test server, kept in an in-memory DuckDB."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from finops_dagster_tests.servers.bigquery_errors import (
    BigQueryError,
    already_exists,
    invalid,
    not_found,
    not_supported,
)
from finops_dagster_tests.servers.bigquery_schema import (
    Field,
    Resource,
    added_fields,
    duckdb_column,
    fields_by_name,
    merged_fields,
    quoted,
    schema_fields,
    schema_mismatch,
)

# The id of a partition as strftime writes it: cur$202401 is January 2024 of a MONTH table.
PARTITION_ID_FORMATS = {"HOUR": "%Y%m%d%H", "DAY": "%Y%m%d", "MONTH": "%Y%m", "YEAR": "%Y"}
_TABLE_PROPERTIES = ("timePartitioning", "clustering", "description", "labels")
_PATCHABLE = {"schema", "description", "labels", "expirationTime"}


class Dataset:
    """A dataset and its tables by their ids, its rows in one schema of DuckDB."""

    def __init__(self, project: str, resource: Resource) -> None:
        self.project = project
        self.dataset_id: str = resource["datasetReference"]["datasetId"]
        self.full_name = f"{project}:{self.dataset_id}"
        self.location: str = resource.get("location") or "US"
        self.duckdb_schema = f"{project}.{self.dataset_id}"
        self.tables: dict[str, Table] = {}
        self._properties = without_nulls(resource)

    def resource(self) -> Resource:
        """The dataset as the REST API shows it."""
        identity = {"kind": "bigquery#dataset", "id": self.full_name, "location": self.location}
        reference = {"projectId": self.project, "datasetId": self.dataset_id}
        return {**self._properties, **identity, "datasetReference": reference}


class Table:
    """The metadata of a table, its rows in the DuckDB table ``sql_name``."""

    def __init__(
        self, dataset: Dataset, table_id: str, fields: list[Field], properties: Resource
    ) -> None:
        self.dataset = dataset
        self.table_id = table_id
        self.full_name = f"{dataset.full_name}.{table_id}"
        self.sql_name = f"{quoted(dataset.duckdb_schema)}.{quoted(table_id)}"
        self.fields = fields
        self.properties = properties
        self.version = 1
        _check_partitioning(fields, properties.get("timePartitioning"))
        for name in properties.get("clustering", {}).get("fields", []):
            if name.lower() not in fields_by_name(fields):
                reason = "The field specified for clustering cannot be found in the schema."
                raise invalid(f"{reason} Invalid field: {name}.")

    @property
    def etag(self) -> str:
        """Changes with the metadata and with every load."""
        return f"{self.table_id}-{self.version}"

    def resource(self) -> Resource:
        """The table as the REST API shows it, without what its rows tell."""
        reference = {"datasetId": self.dataset.dataset_id, "tableId": self.table_id}
        return {
            "kind": "bigquery#table",
            "type": "TABLE",
            "id": self.full_name,
            "etag": self.etag,
            "location": self.dataset.location,
            "tableReference": {"projectId": self.dataset.project, **reference},
            "schema": {"fields": self.fields},
            **self.properties,
        }

    def loaded(self, fields: list[Field]) -> None:
        """Makes the table, its fields and its new etag known, once a load is through."""
        self.fields = fields
        self.version += 1
        self.dataset.tables[self.table_id] = self


class Catalog:
    """Every dataset of the server, and the DuckDB connection that holds their rows."""

    def __init__(self, map_key_mode: str) -> None:
        self.map_key_mode = map_key_mode
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self._datasets: dict[tuple[str, str], Dataset] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits what the block did, or undoes all of it when it raises."""
        self.connection.begin()
        try:
            yield
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def insert_dataset(self, project: str, resource: Resource) -> Dataset:
        """Creates a dataset, in the US unless told otherwise."""
        dataset = Dataset(project, resource)
        if (project, dataset.dataset_id) in self._datasets:
            raise already_exists(f"Dataset {dataset.full_name}")
        self.connection.execute(f"CREATE SCHEMA {quoted(dataset.duckdb_schema)}")
        self._datasets[project, dataset.dataset_id] = dataset
        return dataset

    def dataset(self, project: str, dataset_id: str, location: str | None = None) -> Dataset:
        """The dataset, or BigQuery's 404, also when it lives in another location."""
        dataset = self._datasets.get((project, dataset_id))
        if dataset is None:
            raise not_found(f"Dataset {project}:{dataset_id}")
        if location not in (None, dataset.location):
            raise not_found(f"Dataset {dataset.full_name} was not found in location {location}")
        return dataset

    def datasets(self, project: str) -> list[Dataset]:
        """All datasets of a project."""
        return [dataset for dataset in self._datasets.values() if dataset.project == project]

    def insert_table(self, dataset: Dataset, resource: Resource) -> Table:
        """Creates an empty table."""
        table_id = resource["tableReference"]["tableId"]
        fields = schema_fields(resource.get("schema"))
        table = Table(dataset, table_id, fields, table_properties(resource))
        if table_id in dataset.tables:
            raise already_exists(f"Table {table.full_name}")
        self.create_empty(table)
        dataset.tables[table_id] = table
        return table

    def table(
        self, project: str, dataset_id: str, table_id: str, location: str | None = None
    ) -> Table:
        """The table, or BigQuery's 404."""
        dataset = self.dataset(project, dataset_id, location)
        if table_id not in dataset.tables:
            raise not_found(f"Table {dataset.full_name}.{table_id}")
        return dataset.tables[table_id]

    def delete_table(self, table: Table) -> None:
        """Drops a table with its rows."""
        self.connection.execute(f"DROP TABLE {table.sql_name}")
        del table.dataset.tables[table.table_id]

    def patch_table(self, table: Table, patch: Resource, if_match: str | None) -> None:
        """Changes what is told of it; a new schema may only add NULLABLE columns."""
        if if_match not in (None, table.etag):
            raise BigQueryError(412, "conditionNotMet", "Precondition Failed")
        if not patch.keys() <= _PATCHABLE:
            raise not_supported(f"changing {sorted(patch.keys() - _PATCHABLE)} of a table")
        if "schema" in patch:
            fields = schema_fields(patch["schema"])
            merged = merged_fields(table.full_name, table.fields, fields)
            for name in fields_by_name(table.fields).keys() - fields_by_name(fields).keys():
                raise schema_mismatch(table.full_name, f"Field {name} is missing in new schema")
            with self.transaction():
                self.alter(table, merged)
            table.fields = merged
        changes = {name: patch[name] for name in patch if name != "schema"}
        table.properties = without_nulls({**table.properties, **changes})
        table.version += 1

    def create_empty(self, table: Table) -> None:
        """Creates the DuckDB table, in place of one of that name."""
        if not table.fields:
            raise not_supported("tables without a schema")
        columns = ", ".join(duckdb_column(column) for column in table.fields)
        self.connection.execute(f"CREATE OR REPLACE TABLE {table.sql_name} ({columns})")

    def alter(self, table: Table, merged: list[Field]) -> None:
        """Gives the DuckDB table the columns that its fields lack, in which the rows that are there
        hold NULL or no element, and lets those hold NULL that are no longer REQUIRED."""
        for before, after in zip(table.fields, merged, strict=False):
            if before["mode"] != after["mode"]:
                column_name = quoted(before["name"])
                relax = f"ALTER TABLE {table.sql_name} ALTER {column_name} DROP NOT NULL"
                self.connection.execute(relax)
        for column in added_fields(table.fields, merged):
            if column["mode"] == "REQUIRED":
                detail = "Cannot add required fields to an existing schema."
                raise schema_mismatch(table.full_name, f"{detail} (field: {column['name']})")
            alter = f"ALTER TABLE {table.sql_name} ADD COLUMN {duckdb_column(column)}"
            self.connection.execute(alter)

    def count_rows(self, table: Table, condition: str = "true") -> int:
        """The number of rows for which a SQL condition holds."""
        counting = f"SELECT count(*) FROM {table.sql_name} WHERE {condition}"
        return int(self.connection.sql(counting).fetchall()[0][0])


def table_properties(resource: Resource) -> Resource:
    """What the server keeps of a table, or of a load that makes one, besides the schema."""
    if resource.get("rangePartitioning"):
        raise not_supported("partitioning by ranges of integers")
    return without_nulls({name: resource.get(name) for name in _TABLE_PROPERTIES})


def without_nulls(resource: Resource) -> Resource:
    """The resource without the properties that the client sends as null."""
    return {name: value for name, value in resource.items() if value is not None}


def _check_partitioning(fields: list[Field], partitioning: Resource | None) -> None:
    if partitioning is None:
        return
    if partitioning.get("type") not in PARTITION_ID_FORMATS or not partitioning.get("field"):
        raise not_supported(f"the partitioning {partitioning}")
    column = fields_by_name(fields).get(partitioning["field"].lower())
    if column is None:
        raise invalid("The field specified for partitioning cannot be found in the schema")
    if column["type"] not in ("DATE", "DATETIME", "TIMESTAMP"):
        wrong = f"must be of timestamp or date type, has type {column['type']}"
        raise invalid(f"Partitioning column {column['name']} {wrong}")
