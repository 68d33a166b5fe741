"""Load jobs of the BigQuery test server: a Parquet file becomes rows of a table or a partition."""

import io
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster_tests.servers.bigquery_catalog import (
    PARTITION_ID_FORMATS,
    Catalog,
    Table,
    table_properties,
)
from finops_dagster_tests.servers.bigquery_errors import (
    already_exists,
    invalid,
    not_found,
    not_supported,
)
from finops_dagster_tests.servers.bigquery_schema import (
    DUCKDB_TYPES,
    Field,
    Resource,
    added_fields,
    fields_by_name,
    quoted,
    schema_fields,
    schema_mismatch,
)

_READING = "Error while reading data, error message:"
# How many digits a decimal type holds before the point, and after it.
_DECIMAL_DIGITS = {"NUMERIC": (29, 9), "BIGNUMERIC": (38, 38), "STRING": (77, 77)}
# A TIMESTAMP is a TIMESTAMP, be it adjusted to UTC or not: see the docstring of the server.
_LOGICAL_TYPES = {
    "STRING": "STRING",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP",
    "INT": "INTEGER",
}
_PHYSICAL_TYPES = {
    "BOOLEAN": "BOOLEAN",
    "INT32": "INTEGER",
    "INT64": "INTEGER",
    "INT96": "TIMESTAMP",
    "FLOAT": "FLOAT",
    "DOUBLE": "FLOAT",
}
# The schema of a load job may choose within a group; any other difference is refused.
_READABLE_AS_EACH_OTHER = ({"TIMESTAMP", "DATETIME"}, {"NUMERIC", "BIGNUMERIC"})


@dataclass
class _Destination:
    """Where the rows go; ``is_new`` when the load makes the table, or makes it anew."""

    table: Table
    partition_id: str
    is_new: bool

    def in_partition(self) -> str:
        """The SQL condition that a row belongs to the partition."""
        partitioning = self.table.properties.get("timePartitioning")
        if partitioning is None:
            detail = "Expected partitioning specification none, but a partition was given"
            raise invalid(f"Incompatible table partitioning specification. {detail}")
        moment = f"CAST({quoted(partitioning['field'])} AS TIMESTAMP)"
        row_partition = f"strftime({moment}, '{PARTITION_ID_FORMATS[partitioning['type']]}')"
        return f"{row_partition} IS NOT DISTINCT FROM '{self.partition_id}'"


def load_parquet(catalog: Catalog, config: Resource, payload: bytes) -> int:
    """Loads a file as the ``load`` configuration of a job says; returns the number of rows."""
    file = _opened(config, payload)
    file_fields = _file_fields(file, config.get("decimalTargetTypes") or ["NUMERIC"])
    fields = schema_fields(config.get("schema")) or file_fields
    destination = _destination(catalog, config, fields)
    _check_file(destination.table, file_fields, fields)
    added = [] if destination.is_new else _fields_to_add(destination.table, config, fields)
    rows = file.read()
    catalog.connection.register("parquet_file", rows)
    try:
        _check_decimals(catalog.connection, rows, fields)
        _check_partition(catalog.connection, rows, destination)
        with catalog.transaction():
            _write(catalog, config, destination, added, rows.schema.names)
    except duckdb.Error as error:
        raise invalid(f"{_READING} {error}") from error
    finally:
        catalog.connection.unregister("parquet_file")
    destination.table.loaded(added)
    return int(rows.num_rows)


def _opened(config: Resource, payload: bytes) -> pq.ParquetFile:
    if config.get("sourceFormat") != "PARQUET":
        raise not_supported(f"the source format {config.get('sourceFormat', 'CSV')}")
    try:
        return pq.ParquetFile(io.BytesIO(payload))
    except pa.ArrowInvalid as error:
        raise invalid(f"{_READING} Input file is not in Parquet format.") from error


def _file_fields(file: pq.ParquetFile, decimal_targets: list[str]) -> list[Field]:
    fields = []
    for column in (file.schema.column(index) for index in range(len(file.schema))):
        if column.max_repetition_level or column.path != column.name:
            raise not_supported(f"the nested Parquet column {column.path}")
        mode = "NULLABLE" if column.max_definition_level else "REQUIRED"
        type_name = _file_type(column, decimal_targets)
        fields.append({"name": column.name, "type": type_name, "mode": mode})
    return schema_fields({"fields": fields})


def _file_type(column: pq.ColumnSchema, decimal_targets: list[str]) -> str:
    logical = column.logical_type.type
    if logical == "DECIMAL":
        return _decimal_type(column.precision, column.scale, decimal_targets)
    if logical == "TIMESTAMP" and "nanoseconds" in column.logical_type.to_json():
        raise not_supported(f"nanoseconds, which the Parquet column {column.name} holds")
    return _LOGICAL_TYPES.get(logical) or _PHYSICAL_TYPES.get(column.physical_type, "BYTES")


def _decimal_type(precision: int, scale: int, targets: list[str]) -> str:
    """The narrowest allowed type that holds the digits, else the widest allowed one."""
    allowed = [name for name in _DECIMAL_DIGITS if name in targets]
    for name in allowed:
        before_point, after_point = _DECIMAL_DIGITS[name]
        if precision - scale <= before_point and scale <= after_point:
            return name
    return allowed[-1]


def _destination(catalog: Catalog, config: Resource, fields: list[Field]) -> _Destination:
    target = config["destinationTable"]
    dataset = catalog.dataset(target["projectId"], target["datasetId"])
    table_id, _, partition_id = target["tableId"].partition("$")
    disposition = config.get("writeDisposition", "WRITE_APPEND")
    if disposition not in ("WRITE_APPEND", "WRITE_EMPTY", "WRITE_TRUNCATE"):
        raise not_supported(disposition)
    truncates_table = disposition == "WRITE_TRUNCATE" and not partition_id
    if config.get("schemaUpdateOptions") and truncates_table:
        raise invalid(
            "Schema update options should only be specified with WRITE_APPEND disposition, "
            "or with WRITE_TRUNCATE disposition on a table partition."
        )
    table = dataset.tables.get(table_id)
    if table and not truncates_table:
        return _Destination(table, partition_id, is_new=False)
    if table is None and config.get("createDisposition") == "CREATE_NEVER":
        raise not_found(f"Table {dataset.full_name}.{table_id}")
    properties = {**(table.properties if table else {}), **table_properties(config)}
    made = Table(dataset, table_id, fields, properties)
    made.version = table.version if table else 0
    return _Destination(made, partition_id, is_new=True)


def _check_file(table: Table, file_fields: list[Field], fields: list[Field]) -> None:
    """Compares the file with the schema that the job gives, where it gives one."""
    wanted_fields = fields_by_name(fields)
    for column in file_fields:
        name, file_type = column["name"], column["type"]
        wanted = wanted_fields.get(name.lower())
        if wanted is None:
            raise schema_mismatch(table.full_name, f"Cannot add fields (field: {name})")
        types = {file_type, wanted["type"]}
        if len(types) > 1 and not any(types <= group for group in _READABLE_AS_EACH_OTHER):
            mismatch = f"which does not match the target type {wanted['type']}"
            raise invalid(f"{_READING} Parquet column '{name}' has type {file_type} {mismatch}")
        if (column["mode"], wanted["mode"]) == ("REQUIRED", "NULLABLE"):
            raise invalid(
                f"{_READING} Provided schema is not compatible with the file. Field '{name}' is "
                "specified as NULLABLE in provided schema which does not match REQUIRED as "
                "specified in the file."
            )


def _check_decimals(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, fields: list[Field]
) -> None:
    """Refuses a number that its type would round: BigQuery loads decimals exactly or not."""
    wanted = fields_by_name(fields)
    for name, arrow_type in zip(rows.schema.names, rows.schema.types, strict=True):
        if not pa.types.is_decimal(arrow_type):
            continue
        column, type_name = quoted(name), wanted[name.lower()]["type"]
        file_type = f"DECIMAL({arrow_type.precision},{arrow_type.scale})"
        kept = f"CAST(CAST({column} AS {DUCKDB_TYPES[type_name]}) AS {file_type})"
        lossy = f"SELECT {column} FROM parquet_file WHERE {kept} <> {column} LIMIT 1"
        for (value,) in connection.sql(lossy).fetchall():
            raise invalid(f"{_READING} Invalid {type_name} value: {value:f} Field: {name}")


def _fields_to_add(table: Table, config: Resource, fields: list[Field]) -> list[Field]:
    added = added_fields(table.full_name, table.fields, fields)
    options = set(config.get("schemaUpdateOptions") or [])
    if added and "ALLOW_FIELD_ADDITION" not in options:
        raise schema_mismatch(table.full_name, f"Cannot add fields (field: {added[0]['name']})")
    for old in table.fields:
        if old["mode"] == "REQUIRED" and old["name"].lower() not in fields_by_name(fields):
            raise schema_mismatch(table.full_name, f"Field {old['name']} is missing in new schema")
    return added


def _check_partition(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, destination: _Destination
) -> None:
    if not destination.partition_id:
        return
    inside = destination.in_partition()
    field = destination.table.properties["timePartitioning"]["field"]
    if field.lower() not in (name.lower() for name in rows.schema.names):
        inside = "false"  # a column that the file lacks is NULL, and NULL is in no month
    outside = f"SELECT 1 FROM parquet_file WHERE NOT ({inside}) LIMIT 1"
    if connection.sql(outside).fetchall():
        elsewhere = f"rather than destination partition {destination.partition_id}"
        raise invalid(f"Some rows belong to different partitions {elsewhere}")


def _write(
    catalog: Catalog,
    config: Resource,
    destination: _Destination,
    added: list[Field],
    columns: list[str],
) -> None:
    table, disposition = destination.table, config.get("writeDisposition")
    if destination.is_new:
        catalog.create_empty(table)
    catalog.add_columns(table, added)
    replaced = destination.in_partition() if destination.partition_id else "true"
    if disposition == "WRITE_TRUNCATE":
        catalog.connection.execute(f"DELETE FROM {table.sql_name} WHERE {replaced}")
    elif disposition == "WRITE_EMPTY" and catalog.count_rows(table, replaced):
        raise already_exists(f"Table {table.full_name}")
    names = ", ".join(quoted(name) for name in columns)
    insert = f"INSERT INTO {table.sql_name} ({names}) SELECT {names} FROM parquet_file"
    catalog.connection.execute(insert)
