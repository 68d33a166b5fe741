"""Schemas of the BigQuery test server: types, the rules for names, and what may change."""

import re
from typing import Any

from finops_dagster_tests.servers.bigquery_errors import invalid, not_supported

Resource = dict[str, Any]
Field = dict[str, Any]

# BigQuery answers with the legacy name of a type, whichever of its names it was given.
_LEGACY_TYPE_NAMES = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
DUCKDB_TYPES = {
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "NUMERIC": "DECIMAL(38,9)",
    "BIGNUMERIC": "DECIMAL(38,18)",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
}
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED_PREFIXES = tuple(
    "_PARTITION _TABLE_ _FILE_ _ROW_TIMESTAMP __ROOT__ _COLIDENTIFIER".split()
)


def legacy_type_name(type_name: str) -> str:
    """The name under which BigQuery returns a type: INTEGER for INT64."""
    return _LEGACY_TYPE_NAMES.get(type_name.upper(), type_name.upper())


def schema_fields(schema: Resource | None) -> list[Field]:
    """The checked fields of a schema resource, their types and modes written out."""
    fields = [_normal_field(column) for column in (schema or {}).get("fields") or []]
    if len(fields_by_name(fields)) < len(fields):
        names = [column["name"].lower() for column in fields]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(f"Field {twice} already exists in schema")
    return fields


def fields_by_name(fields: list[Field]) -> dict[str, Field]:
    """The fields by their names in lower case: BigQuery ignores the case of a column."""
    return {column["name"].lower(): column for column in fields}


def merged_fields(
    table_name: str, old: list[Field], new: list[Field], relax: bool = False, inside: str = ""
) -> list[Field]:
    """The fields of a table that takes a new schema, the added ones last; refuses a field whose
    type or mode changed, but for a REQUIRED one that became NULLABLE where it may ``relax``."""
    after = fields_by_name(new)
    merged = []
    for before in old:
        column = after.get(before["name"].lower(), before)
        relaxed = relax and (before["mode"], column["mode"]) == ("REQUIRED", "NULLABLE")
        for what in ("type",) if relaxed else ("type", "mode"):
            if before[what] != column[what]:
                change = f"has changed {what} from {before[what]} to {column[what]}"
                raise schema_mismatch(table_name, f"Field {inside}{before['name']} {change}")
        told = {what: column[what] for what in ("mode", "description") if what in column}
        merged.append(before | told)
        if "fields" in before:
            path = f"{inside}{before['name']}."
            nested = merged_fields(table_name, before["fields"], column["fields"], relax, path)
            merged[-1]["fields"] = nested
    added = added_fields(old, new)
    if inside and (added or len(new) < len(old)):
        raise not_supported(f"adding or leaving out fields of {inside.rstrip('.')}")
    return merged + added


def added_fields(old: list[Field], new: list[Field]) -> list[Field]:
    """Those of ``new`` that ``old`` lacks."""
    known = fields_by_name(old)
    return [column for column in new if column["name"].lower() not in known]


def schema_mismatch(table_name: str, detail: str) -> Exception:
    """The refusal of a schema that does not fit the table's."""
    return invalid(f"Provided Schema does not match Table {table_name}. {detail}")


def duckdb_column(column: Field) -> str:
    """The definition of a column in DuckDB's DDL."""
    constraint = {"REQUIRED": " NOT NULL", "REPEATED": " DEFAULT []"}.get(column["mode"], "")
    return f"{quoted(column['name'])} {duckdb_type(column)}{constraint}"


def duckdb_type(column: Field) -> str:
    """The type that holds a field: STRUCT(...)[] for a REPEATED RECORD."""
    if column["type"] != "RECORD":
        return DUCKDB_TYPES[column["type"]]
    inside = (f"{quoted(field['name'])} {duckdb_type(field)}" for field in column["fields"])
    return f"STRUCT({', '.join(inside)}){'[]' if column['mode'] == 'REPEATED' else ''}"


def quoted(identifier: str) -> str:
    """The identifier as DuckDB's SQL writes it."""
    return '"' + identifier.replace('"', '""') + '"'


def _normal_field(column: Field) -> Field:
    _check_field_name(column["name"])
    type_name = legacy_type_name(column["type"])
    mode = (column.get("mode") or "NULLABLE").upper()
    normal = {**column, "type": type_name, "mode": mode}
    if type_name == "RECORD":
        if not column.get("fields"):
            raise invalid(f"Field {column['name']} is type RECORD but has no schema")
        normal["fields"] = schema_fields(column)
    elif type_name not in DUCKDB_TYPES or mode == "REPEATED":
        raise not_supported(f"field {column['name']} of type {type_name} and mode {mode}")
    return normal


def _check_field_name(name: str) -> None:
    if not _FIELD_NAME.fullmatch(name):
        raise invalid(
            f'Invalid field name "{name}". Fields must contain only letters, numbers, and '
            "underscores, start with a letter or underscore, and be at most 300 characters long."
        )
    if name.upper().startswith(_RESERVED_PREFIXES):
        raise invalid(
            f'Invalid field name "{name}". Field names are not allowed to start with the '
            f"(case-insensitive) prefixes {', '.join(_RESERVED_PREFIXES)}"
        )
