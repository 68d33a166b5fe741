"""The datasets, tables and load jobs of the BigQuery test server.

The rows are in an in-memory DuckDB.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster_tests.servers.bigquery_errors import (
    BigQueryError,
    already_exists,
    invalid,
    not_found,
    not_supported,
)

Resource = dict[str, Any]
Field = dict[str, Any]

# BigQuery answers with the legacy name of a type, whichever of its names a request has.
LEGACY_TYPES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
DUCKDB_TYPES = {
    "STRING": "VARCHAR",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "BIGNUMERIC": "DECIMAL(38,18)",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
}
# TIMESTAMP, adjusted to UTC or not: see the docstring of the server.
_PARQUET_TYPES = {
    "string": "STRING",
    "date32[day]": "DATE",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMP",
}
_RESERVED = "_PARTITION|_TABLE_|_FILE_|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER"
_FIELD_NAME = re.compile(rf"(?!{_RESERVED})[A-Z_][A-Z0-9_]{{0,299}}", re.ASCII | re.IGNORECASE)
_DESCRIPTIVE = ("description", "labels", "expirationTime")
_READING = "Error while reading data, error message:"


class Dataset:
    """A dataset and its tables by id; its rows are in one schema of DuckDB."""

    def __init__(self, project: str, resource: Resource) -> None:
        self.project = project
        self.dataset_id: str = resource["datasetReference"]["datasetId"]
        self.full_name = f"{project}:{self.dataset_id}"
        self.location: str = resource.get("location") or "US"
        self.duckdb_schema = f"{project}.{self.dataset_id}"
        self.tables: dict[str, Table] = {}

    def resource(self) -> Resource:
        """Return the dataset as the REST API shows it."""
        reference = {"projectId": self.project, "datasetId": self.dataset_id}
        return {"id": self.full_name, "location": self.location, "datasetReference": reference}


class Table:
    """The metadata of a table; its rows are in the DuckDB table `sql_name`."""

    def __init__(
        self, dataset: Dataset, table_id: str, fields: list[Field], properties: Resource
    ) -> None:
        self.dataset, self.table_id, self.fields = dataset, table_id, fields
        self.full_name = f"{dataset.full_name}.{table_id}"
        self.sql_name = f"{quoted(dataset.duckdb_schema)}.{quoted(table_id)}"
        names = ("timePartitioning", "clustering", *_DESCRIPTIVE)
        self.properties = {name: properties[name] for name in names if properties.get(name)}
        self.version = 1
        self.kind = "TABLE"
        types = {name: field["type"] for name, field in fields_by_name(fields).items()}
        months = self.properties.get("timePartitioning")
        if months and (months["type"], types.get(months.get("field"))) != ("MONTH", "DATE"):
            raise not_supported(f"the partitioning {months}")
        for name in self.properties.get("clustering", {}).get("fields", []):
            if name.lower() not in types:
                reason = "The field specified for clustering cannot be found in the schema."
                raise invalid(f"{reason} Invalid field: {name}.")

    @property
    def etag(self) -> str:
        """A text that changes with the metadata and with every load."""
        return f"{self.table_id}-{self.version}"

    def resource(self) -> Resource:
        """Return the table as the REST API shows it, without the number of rows."""
        reference = {"projectId": self.dataset.project, "datasetId": self.dataset.dataset_id}
        return {
            "type": self.kind,
            "id": self.full_name,
            "etag": self.etag,
            "location": self.dataset.location,
            "tableReference": {**reference, "tableId": self.table_id},
            "schema": {"fields": self.fields},
            **self.properties,
        }

    def in_partition(self, partition_id: str) -> str:
        """Return the SQL condition that a row is in a partition, such as `202401`."""
        month = f"strftime({quoted(self.properties['timePartitioning']['field'])}, '%Y%m')"
        return f"{month} IS NOT DISTINCT FROM '{partition_id}'"


class Catalog:
    """All datasets of the server, and the DuckDB connection with their rows."""

    def __init__(self, map_key_mode: str) -> None:
        self._map_key_mode = map_key_mode
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self._datasets: dict[tuple[str, str], Dataset] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or roll it back where the block raises."""
        self.connection.begin()
        try:
            yield
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def insert_dataset(self, project: str, resource: Resource) -> Dataset:
        dataset = Dataset(project, resource)
        if (project, dataset.dataset_id) in self._datasets:
            raise already_exists(f"Dataset {dataset.full_name}")
        self.connection.execute(f"CREATE SCHEMA {quoted(dataset.duckdb_schema)}")
        self._datasets[project, dataset.dataset_id] = dataset
        return dataset

    def dataset(self, project: str, dataset_id: str, location: str | None = None) -> Dataset:
        """Return a dataset. Raises BigQuery's 404, also where it is in another location."""
        dataset = self._datasets.get((project, dataset_id))
        if dataset is None:
            raise not_found(f"Dataset {project}:{dataset_id}")
        if location not in (None, dataset.location):
            raise not_found(f"Dataset {dataset.full_name} was not found in location {location}")
        return dataset

    def datasets(self, project: str) -> list[Dataset]:
        """Return all datasets of a project."""
        return [dataset for dataset in self._datasets.values() if dataset.project == project]

    def insert_table(self, dataset: Dataset, resource: Resource) -> Table:
        table_id = resource["tableReference"]["tableId"]
        table = Table(dataset, table_id, schema_fields(resource.get("schema")), resource)
        if table_id in dataset.tables:
            raise already_exists(f"Table {table.full_name}")
        self.create_empty(table)
        dataset.tables[table_id] = table
        return table

    def table(
        self, project: str, dataset_id: str, table_id: str, location: str | None = None
    ) -> Table:
        """Return a table. Raises BigQuery's 404."""
        dataset = self.dataset(project, dataset_id, location)
        if table_id not in dataset.tables:
            raise not_found(f"Table {dataset.full_name}.{table_id}")
        return dataset.tables[table_id]

    def view(self, project: str, dataset_id: str, view_id: str, location: str) -> Table:
        """Return a view without fields; record it if it is new.

        The view is not created in DuckDB. Raises BigQuery's 404 if the dataset does not exist.
        """
        dataset = self.dataset(project, dataset_id, location)
        view = dataset.tables.setdefault(view_id, Table(dataset, view_id, [], {}))
        view.kind = "VIEW"
        return view

    def delete_table(self, table: Table) -> None:
        """Drop a table with its rows, or a view."""
        self.connection.execute(f"DROP {table.kind} {table.sql_name}")
        del table.dataset.tables[table.table_id]

    def patch_table(self, table: Table, patch: Resource, if_match: str | None) -> None:
        """Change a table's description, labels, expiration or schema.

        The schema may get new columns, and may lose none. Raises BigQueryError, a 412 if `if_match`
        is not None and not the table's ETag.
        """
        if if_match not in (None, table.etag):
            raise BigQueryError(412, "conditionNotMet", "Precondition Failed")
        if not patch.keys() <= {"schema", *_DESCRIPTIVE}:
            raise not_supported(f"changing {sorted(patch)} of a table")
        if "schema" in patch:
            fields = schema_fields(patch["schema"])
            merged = merged_fields(table.full_name, table.fields, fields)
            for name in fields_by_name(table.fields).keys() - fields_by_name(fields).keys():
                raise _mismatch(table.full_name, f"Field {name} is missing in new schema")
            with self.transaction():
                self._alter(table, merged)
            table.fields = merged
        table.properties |= {name: patch[name] for name in patch if name != "schema"}
        table.version += 1

    def create_empty(self, table: Table) -> None:
        """Create the DuckDB table, or replace it by an empty one."""
        columns = ", ".join(map(_duckdb_column, table.fields))
        self.connection.execute(f"CREATE OR REPLACE TABLE {table.sql_name} ({columns})")

    def _alter(self, table: Table, merged: list[Field]) -> None:
        """Add the new columns to the DuckDB table, and drop NOT NULL where a column is relaxed.

        Existing rows have NULL, or an array without elements, in the new columns.
        """
        for old, new in zip(table.fields, merged, strict=False):
            if old["mode"] != new["mode"]:
                relax = f"ALTER {quoted(old['name'])} DROP NOT NULL"
                self.connection.execute(f"ALTER TABLE {table.sql_name} {relax}")
        for column in _added(table.fields, merged):
            if column["mode"] == "REQUIRED":
                detail = "Cannot add required fields to an existing schema."
                raise _mismatch(table.full_name, f"{detail} (field: {column['name']})")
            add = f"ADD COLUMN {_duckdb_column(column)}"
            self.connection.execute(f"ALTER TABLE {table.sql_name} {add}")

    def count_rows(self, table: Table) -> int:
        """Return the number of rows of a table."""
        ((rows,),) = self.connection.sql(f"SELECT count(*) FROM {table.sql_name}").fetchall()
        return int(rows)

    def load(self, config: Resource, payload: bytes) -> int:
        """Replace a partition by the rows of a Parquet file, and return their number.

        `config` is the `load` configuration of a job.
        """
        target, options = config["destinationTable"], config.get("schemaUpdateOptions") or []
        table_id, _, partition_id = target["tableId"].partition("$")
        _check_supported(config, is_partition=bool(partition_id))
        table = self.table(target["projectId"], target["datasetId"], table_id)
        try:
            rows = pq.read_table(io.BytesIO(payload))
        except (OSError, pa.ArrowInvalid) as error:
            raise invalid(f"{_READING} {error}") from error
        file_fields = schema_fields(
            {"fields": [self._file_field(column) for column in rows.schema]}
        )
        fields = _fields_after_load(table, file_fields, options)
        inside = table.in_partition(partition_id)
        self.connection.register("parquet_file", rows)
        try:
            self._check_partition(table, partition_id, file_fields, inside)
            with self.transaction():
                self._alter(table, fields)
                self.connection.execute(f"DELETE FROM {table.sql_name} WHERE {inside}")
                names = ", ".join(quoted(field["name"]) for field in file_fields)
                values = ", ".join(map(_value, file_fields))
                self.connection.execute(
                    f"INSERT INTO {table.sql_name} ({names}) SELECT {values} FROM parquet_file"
                )
        except duckdb.Error as error:
            raise invalid(f"{_READING} {error}") from error
        finally:
            self.connection.unregister("parquet_file")
        table.fields = fields
        table.version += 1
        return int(rows.num_rows)

    def _check_partition(
        self, table: Table, partition_id: str, file_fields: list[Field], inside: str
    ) -> None:
        field = table.properties["timePartitioning"]["field"].lower()
        # A column that the file lacks is NULL, and NULL is in no month.
        inside = inside if field in fields_by_name(file_fields) else "false"
        outside = f"SELECT 1 FROM parquet_file WHERE NOT ({inside}) LIMIT 1"
        if self.connection.sql(outside).fetchall():
            elsewhere = f"rather than destination partition {partition_id}"
            raise invalid(f"Some rows belong to different partitions {elsewhere}")

    def _file_field(self, column: pa.Field) -> Field:
        """Return the field that a load makes of a Parquet column.

        A map becomes an array of its keys and values.
        """
        mode = "NULLABLE" if column.nullable else "REQUIRED"
        if pa.types.is_map(column.type):
            key, value = self._file_field(column.type.key_field), column.type.item_field
            entry = [{**key, "mode": self._map_key_mode}, self._file_field(value)]
            return {"name": column.name, "type": "RECORD", "mode": "REPEATED", "fields": entry}
        return {"name": column.name, "type": _file_type(column), "mode": mode}


def schema_fields(schema: Resource | None) -> list[Field]:
    """Return the fields of a schema, each with its mode and the legacy name of its type.

    Raises BigQueryError for a field that BigQuery refuses, or that this server does not support.
    """
    fields = [_normal_field(column) for column in (schema or {}).get("fields") or []]
    names = [column["name"].lower() for column in fields]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"Field {name} already exists in schema")
    return fields


def fields_by_name(fields: list[Field]) -> dict[str, Field]:
    """Return fields by their lower-case names, as BigQuery ignores the case of a column."""
    return {column["name"].lower(): column for column in fields}


def merged_fields(
    table_name: str, old: list[Field], new: list[Field], relax: bool = False, inside: str = ""
) -> list[Field]:
    """Return the fields of a table after a change of its schema, the added ones last.

    Fields that `new` lacks stay. Raises BigQueryError if the type or mode of a field changes; with
    `relax`, a REQUIRED field may become NULLABLE. `inside` is the path of the record whose fields
    these are, such as `tags.`; none may be added to it, or be missing.
    """
    new_by_name, merged = fields_by_name(new), []
    for field in old:
        column = new_by_name.get(field["name"].lower(), field)
        relaxed = relax and (field["mode"], column["mode"]) == ("REQUIRED", "NULLABLE")
        for key in ("type",) if relaxed else ("type", "mode"):
            if field[key] != column[key]:
                change = f"has changed {key} from {field[key]} to {column[key]}"
                raise _mismatch(table_name, f"Field {inside}{field['name']} {change}")
        changes = {key: column[key] for key in ("mode", "description") if key in column}
        merged.append(field | changes)
        if "fields" in field:
            path = f"{inside}{field['name']}."
            nested = merged_fields(table_name, field["fields"], column["fields"], relax, path)
            merged[-1]["fields"] = nested
    added = _added(old, new)
    if inside and (added or len(new) < len(old)):
        raise not_supported(f"adding or leaving out fields of {inside.rstrip('.')}")
    return merged + added


def duckdb_type(column: Field) -> str:
    """Return the DuckDB type of a field, STRUCT(...)[] for a REPEATED RECORD."""
    if column["type"] != "RECORD":
        return DUCKDB_TYPES[column["type"]]
    inside = (f"{quoted(field['name'])} {duckdb_type(field)}" for field in column["fields"])
    return f"STRUCT({', '.join(inside)}){'[]' if column['mode'] == 'REPEATED' else ''}"


def quoted(identifier: str) -> str:
    """Return an identifier in quotes, as DuckDB's SQL writes it."""
    return '"' + identifier.replace('"', '""') + '"'


def _check_supported(config: Resource, *, is_partition: bool) -> None:
    expected = {
        "sourceFormat": "PARQUET",
        "createDisposition": "CREATE_NEVER",
        "writeDisposition": "WRITE_TRUNCATE",
        "decimalTargetTypes": ["BIGNUMERIC"],
        "parquetOptions": {"mapTargetType": "ARRAY_OF_STRUCT"},
        "schema": None,
    }
    for name, value in expected.items():
        if config.get(name) != value:
            raise not_supported(f"a load job whose {name} is {config.get(name)}")
    if not is_partition:
        raise not_supported("a load job into a whole table")


def _fields_after_load(table: Table, file_fields: list[Field], options: list[str]) -> list[Field]:
    relax = "ALLOW_FIELD_RELAXATION" in options
    merged = merged_fields(table.full_name, table.fields, file_fields, relax)
    if added := _added(table.fields, file_fields):
        raise _mismatch(table.full_name, f"Cannot add fields (field: {added[0]['name']})")
    for old in table.fields:
        if old["mode"] == "REQUIRED" and old["name"].lower() not in fields_by_name(file_fields):
            raise _mismatch(table.full_name, f"Field {old['name']} is missing in new schema")
    return merged


def _file_type(column: pa.Field) -> str:
    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale <= 18 and kind.precision - kind.scale <= 20:
        return "BIGNUMERIC"
    if str(kind) not in _PARQUET_TYPES:
        raise not_supported(f"the Parquet column {column.name} of type {kind}")
    return _PARQUET_TYPES[str(kind)]


def _value(field: Field) -> str:
    """Return the SQL of a file's value as the table has it.

    A map becomes its keys and values; a map that is NULL becomes an empty array, because a REPEATED
    field is never NULL.
    """
    name = quoted(field["name"])
    if field["mode"] != "REPEATED":
        return name
    return f"CAST(coalesce(map_entries({name}), []) AS {duckdb_type(field)})"


def _added(old: list[Field], new: list[Field]) -> list[Field]:
    old_by_name = fields_by_name(old)
    return [column for column in new if column["name"].lower() not in old_by_name]


def _mismatch(table_name: str, detail: str) -> BigQueryError:
    return invalid(f"Provided Schema does not match Table {table_name}. {detail}")


def _duckdb_column(column: Field) -> str:
    constraint = {"REQUIRED": " NOT NULL", "REPEATED": " DEFAULT []"}.get(column["mode"], "")
    return f"{quoted(column['name'])} {duckdb_type(column)}{constraint}"


def _normal_field(column: Field) -> Field:
    name, type_name = column["name"], column["type"].upper()
    if not _FIELD_NAME.fullmatch(name):
        raise invalid(
            f'Invalid field name "{name}". Fields must contain only letters, numbers, and '
            "underscores, start with a letter or underscore, be at most 300 characters long, and "
            f"not start with one of {_RESERVED}."
        )
    mode = (column.get("mode") or "NULLABLE").upper()
    normal = {**column, "type": LEGACY_TYPES.get(type_name, type_name), "mode": mode}
    if normal["type"] == "RECORD":
        if not column.get("fields"):
            raise invalid(f"Field {name} is type RECORD but has no schema")
        normal["fields"] = schema_fields(column)
    elif normal["type"] not in DUCKDB_TYPES or mode == "REPEATED":
        raise not_supported(f"field {name} of type {type_name} and mode {mode}")
    return normal
