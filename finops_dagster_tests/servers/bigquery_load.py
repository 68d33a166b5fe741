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
    Field,
    Resource,
    added_fields,
    duckdb_type,
    fields_by_name,
    merged_fields,
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
    file_fields = _file_fields(file, config, catalog.map_key_mode)
    fields = schema_fields(config.get("schema")) or file_fields
    destination = _destination(catalog, config, fields)
    _check_file(destination.table, file_fields, fields)
    if not destination.is_new:
        fields = _merged(destination.table, config, fields)
    try:
        rows = file.read()
    except OSError as error:
        raise invalid(f"{_READING} {error}") from error
    catalog.connection.register("parquet_file", rows)
    try:
        _check_decimals(catalog.connection, rows, fields)
        _check_partition(catalog.connection, rows, destination)
        with catalog.transaction():
            _write(catalog, config, destination, fields, rows.schema)
    except duckdb.Error as error:
        raise invalid(f"{_READING} {error}") from error
    finally:
        catalog.connection.unregister("parquet_file")
    destination.table.loaded(fields)
    return int(rows.num_rows)


def _opened(config: Resource, payload: bytes) -> pq.ParquetFile:
    if config.get("sourceFormat") != "PARQUET":
        raise not_supported(f"the source format {config.get('sourceFormat', 'CSV')}")
    try:
        return pq.ParquetFile(io.BytesIO(payload))
    except pa.ArrowInvalid as error:
        raise invalid(f"{_READING} Input file is not in Parquet format.") from error


def _file_fields(file: pq.ParquetFile, config: Resource, map_key_mode: str) -> list[Field]:
    decimal_targets = config.get("decimalTargetTypes") or ["NUMERIC"]
    map_target = (config.get("parquetOptions") or {}).get("mapTargetType")
    leaves = iter([file.schema.column(index) for index in range(len(file.schema))])
    fields = []
    for column in file.schema_arrow:
        if not pa.types.is_nested(column.type):
            fields.append(_scalar_field(column, next(leaves), decimal_targets))
        elif pa.types.is_map(column.type) and not pa.types.is_nested(column.type.item_type):
            key = _scalar_field(column.type.key_field, next(leaves), decimal_targets)
            value = _scalar_field(column.type.item_field, next(leaves), decimal_targets)
            entry = [{**key, "mode": map_key_mode}, value]
            fields.append(_map_field(column.name, entry, map_target))
        else:
            raise not_supported(f"the nested Parquet column {column.name}")
    return schema_fields({"fields": fields})


def _scalar_field(column: pa.Field, leaf: pq.ColumnSchema, decimal_targets: list[str]) -> Field:
    mode = "NULLABLE" if column.nullable else "REQUIRED"
    return {"name": column.name, "type": _file_type(leaf, decimal_targets), "mode": mode}


def _map_field(name: str, entry: list[Field], target: str | None) -> Field:
    """A map as the ``mapTargetType`` of BigQuery's ``ParquetOptions`` makes it."""
    record = {"name": name, "type": "RECORD"}
    if target == "ARRAY_OF_STRUCT":
        return {**record, "mode": "REPEATED", "fields": entry}
    entries = {"name": "key_value", "type": "RECORD", "mode": "REPEATED", "fields": entry}
    return {**record, "fields": [entries]}


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


def _check_file(
    table: Table, file_fields: list[Field], fields: list[Field], inside: str = ""
) -> None:
    """Compares the file with the schema that the job gives, where it gives one."""
    wanted_fields = fields_by_name(fields)
    for column in file_fields:
        name, file_type = f"{inside}{column['name']}", column["type"]
        wanted = wanted_fields.get(column["name"].lower())
        if wanted is None:
            raise schema_mismatch(table.full_name, f"Cannot add fields (field: {name})")
        types = {file_type, wanted["type"]}
        if len(types) > 1 and not any(types <= group for group in _READABLE_AS_EACH_OTHER):
            mismatch = f"which does not match the target type {wanted['type']}"
            raise invalid(f"{_READING} Parquet column '{name}' has type {file_type} {mismatch}")
        modes = (column["mode"], wanted["mode"])
        if modes == ("REQUIRED", "NULLABLE") or (len(set(modes)) == 2 and "REPEATED" in modes):
            raise invalid(
                f"{_READING} Provided schema is not compatible with the file. Field '{name}' is "
                f"specified as {wanted['mode']} in provided schema which does not match "
                f"{column['mode']} as specified in the file."
            )
        _check_file(table, column.get("fields", []), wanted.get("fields", []), f"{name}.")


def _check_decimals(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, fields: list[Field]
) -> None:
    """Refuses a number that its type would round: BigQuery loads decimals exactly or not."""
    wanted = fields_by_name(fields)
    for column in rows.schema:
        values, arrow_type = quoted(column.name), column.type
        field = wanted[column.name.lower()]
        if pa.types.is_map(arrow_type):
            values, arrow_type = f"unnest(map_values({values}))", arrow_type.item_type
            while "fields" in field:  # key_value, or value itself
                field = field["fields"][-1]
        if not pa.types.is_decimal(arrow_type):
            continue
        file_type = f"DECIMAL({arrow_type.precision},{arrow_type.scale})"
        kept = f"CAST(CAST(value AS {duckdb_type(field)}) AS {file_type})"
        listed = f"SELECT {values} AS value FROM parquet_file"
        lossy = f"SELECT value FROM ({listed}) WHERE {kept} <> value LIMIT 1"
        for (value,) in connection.sql(lossy).fetchall():
            wrong = f"Invalid {field['type']} value: {value:f} Field: {column.name}"
            raise invalid(f"{_READING} {wrong}")


def _merged(table: Table, config: Resource, fields: list[Field]) -> list[Field]:
    options = set(config.get("schemaUpdateOptions") or [])
    relax = "ALLOW_FIELD_RELAXATION" in options
    merged = merged_fields(table.full_name, table.fields, fields, relax)
    added = added_fields(table.fields, fields)
    if added and "ALLOW_FIELD_ADDITION" not in options:
        raise schema_mismatch(table.full_name, f"Cannot add fields (field: {added[0]['name']})")
    for old in table.fields:
        if old["mode"] == "REQUIRED" and old["name"].lower() not in fields_by_name(fields):
            raise schema_mismatch(table.full_name, f"Field {old['name']} is missing in new schema")
    return merged


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
    fields: list[Field],
    schema: pa.Schema,
) -> None:
    table, disposition = destination.table, config.get("writeDisposition")
    if destination.is_new:
        catalog.create_empty(table)
    catalog.alter(table, fields)
    replaced = destination.in_partition() if destination.partition_id else "true"
    if disposition == "WRITE_TRUNCATE":
        catalog.connection.execute(f"DELETE FROM {table.sql_name} WHERE {replaced}")
    elif disposition == "WRITE_EMPTY" and catalog.count_rows(table, replaced):
        raise already_exists(f"Table {table.full_name}")
    types = fields_by_name(fields)
    names = ", ".join(quoted(column.name) for column in schema)
    values = ", ".join(_value(column, types[column.name.lower()]) for column in schema)
    insert = f"INSERT INTO {table.sql_name} ({names}) SELECT {values} FROM parquet_file"
    catalog.connection.execute(insert)


def _value(column: pa.Field, field: Field) -> str:
    """The SQL of a value of the file as the table holds it: a map as its keys and values, and a
    map that is NULL as one without any, because a REPEATED field is never NULL."""
    name = quoted(column.name)
    if not pa.types.is_map(column.type):
        return name
    entries = f"map_entries({name})"
    if field["mode"] == "REPEATED":
        return f"CAST(coalesce({entries}, []) AS {duckdb_type(field)})"
    struct = f"CAST(struct_pack(key_value := {entries}) AS {duckdb_type(field)})"
    return f"CASE WHEN {name} IS NOT NULL THEN {struct} END"
