"""A bill's columns in BigQuery: their types, what those become over months, and how many fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from google.cloud.bigquery import SchemaField, Table

from finops_dagster.billing.columns import Sql, SqlType, type_over_months
from finops_dagster.billing.errors import BillError
from finops_dagster.warehouses.base import MonthFile

# BigQuery counts the fields that hold values, so that a map is two.
_MOST_COLUMNS = 10_000

_TEXT_MAP = "ARRAY<STRUCT<key STRING, value STRING>>"
_BILL_TYPES = {"STRING": SqlType.TEXT, "TIMESTAMP": SqlType.TIME, _TEXT_MAP: SqlType.TEXT_MAP}
# What DuckDB makes of them. An array without elements may be a map that was NULL, or a month that
# did not have the column, so it is NULL.
_AS_TEXT = {
    "TIMESTAMP": "CONCAT(RTRIM(RTRIM(FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6S', {0}), '0'), '.'), "
    "'Z')",
    _TEXT_MAP: "(SELECT CONCAT('{{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', "
    "COALESCE(TO_JSON_STRING(value), 'null')), ',' ORDER BY key), '}}') FROM UNNEST({0}))",
}


@dataclass(frozen=True)
class Widening:
    """What a month asks of the table: columns that are new, columns that become text there, and
    columns of the file that are text in the table; and what somebody should know of them."""

    new: list[SchemaField]
    becoming_text: list[SchemaField]
    brought_as_text: list[str]
    warnings: list[str]


def widening(file: MonthFile, table: str, held: Sequence[SchemaField]) -> Widening:
    """What the month asks of a table that has the columns `held`, none where there is no table.

    Raises BillError, before anything is done, for a column that can be neither type, and for more
    columns than BigQuery takes.
    """
    there = {field.name.lower(): field for field in held}
    new, becoming_text, brought_as_text, warnings = [], [], [], []
    for given in map(field_of, file.schema):
        was = there.get(given.name.lower())
        if was is None:
            new.append(given)
            continue
        held_type, given_type = _type(was), _type(given)
        if held_type == given_type:
            continue
        is_text = _bill_type(held_type) == SqlType.TEXT
        if not type_over_months(_bill_type(held_type), _bill_type(given_type)):
            raise BillError(
                f"column {was.name} of {table} is {held_type}, the month's is {given_type}; give "
                "the export another table or change it"
            )
        if not is_text:
            becoming_text.append(was)
        if given_type != "STRING":
            brought_as_text.append(given.name)
        warnings.append(
            f"{was.name} stays STRING, {file.month} gives {given_type}"
            if is_text
            else f"{was.name} was {held_type}, {file.month} gives {given_type}: it is text now"
        )
    columns = sum(map(_leaves, (*held, *new)))
    if columns > _MOST_COLUMNS:
        raise BillError(
            f"{table} would have {columns:,} columns with {file.month}, and BigQuery takes "
            f"{_MOST_COLUMNS:,}, of which a map is two; give the export another name and table, or "
            "activate fewer tags at the vendor"
        )
    return Widening(new, becoming_text, brought_as_text, warnings)


def rewriting(table: Table, becoming_text: Sequence[SchemaField]) -> Sql:
    """The statement that makes the table anew, in one step, with text for some of its columns.

    BigQuery makes text of no such column in place. What would be lost is written down: modes,
    descriptions, labels, key, and when something expires. Raises BillError for policy tags, which
    no statement can write.
    """
    for field in table.schema:
        if field.policy_tags and field.policy_tags.names:
            raise BillError(
                f"column {becoming_text[0].name} of {table.reference} has to become text, for "
                f"which the table is made anew, and {field.name} would lose its policy tags; take "
                "them off, run the month again, and put them on again"
            )
    cells = {
        each.name: _AS_TEXT[_type(each)].format(in_backticks(each.name)) for each in becoming_text
    }
    columns = (
        SchemaField(field.name, "STRING", description=field.description)
        if field.name in cells
        else field
        for field in table.schema
    )
    texts = ", ".join(f"{cell} AS {in_backticks(column)}" for column, cell in cells.items())
    clauses: Mapping[str, Sequence[str]] = {
        "CLUSTER BY {}": [in_backticks(each) for each in table.clustering_fields or ()],
        "OPTIONS({})": list(_options(table)),
    }
    name = in_backticks(str(table.reference))
    return Sql(
        f"CREATE OR REPLACE TABLE {name} ({', '.join(map(_definition, columns))}) "
        "PARTITION BY DATE_TRUNC(billing_month, MONTH) "
        + "".join(f"{clause.format(', '.join(of))} " for clause, of in clauses.items() if of)
        + f"AS SELECT * REPLACE ({texts}) FROM {name}"
    )


def in_backticks(name: str) -> Sql:
    """A name as an identifier of GoogleSQL, in which one may have dots and a backslash escapes."""
    return Sql("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`")


def field_of(field: pa.Field) -> SchemaField:
    """The column that a load makes of the file's; a map is an array of its keys and values."""
    mode = "NULLABLE" if field.nullable else "REQUIRED"
    if pa.types.is_map(field.type):
        inside = (field_of(field.type.key_field), field_of(field.type.item_field))
        return SchemaField(field.name, "RECORD", "REPEATED", fields=inside)
    if pa.types.is_decimal(field.type):
        return SchemaField(field.name, "BIGNUMERIC", mode)
    if pa.types.is_timestamp(field.type):
        return SchemaField(field.name, "TIMESTAMP", mode)
    if pa.types.is_date(field.type):
        return SchemaField(field.name, "DATE", mode)
    return SchemaField(field.name, "STRING", mode)


def _type(field: SchemaField) -> str:
    """The type as SQL writes it: `ARRAY<STRUCT<key STRING, value STRING>>`."""
    inside = ", ".join(f"{each.name} {_type(each)}" for each in field.fields)
    return _in_array(field, f"STRUCT<{inside}>" if inside else str(field.field_type))


def _definition(field: SchemaField) -> str:
    """The column as a table is made with it, where its fields have modes and descriptions."""
    inside = ", ".join(map(_definition, field.fields))
    name = _in_array(field, f"STRUCT<{inside}>" if inside else str(field.field_type))
    required = " NOT NULL" if field.mode == "REQUIRED" else ""
    told = f" OPTIONS(description={_literal(field.description)})" if field.description else ""
    return f"{in_backticks(field.name)} {name}{required}{told}"


def _in_array(field: SchemaField, name: str) -> str:
    return f"ARRAY<{name}>" if field.mode == "REPEATED" else name


def _bill_type(name: str) -> str:
    return _BILL_TYPES.get(name, name)


def _leaves(field: SchemaField) -> int:
    return sum(map(_leaves, field.fields)) or 1


def _options(table: Table) -> Iterable[str]:
    texts = {
        "friendly_name": table.friendly_name,
        "description": table.description,
        "kms_key_name": table.encryption_configuration
        and table.encryption_configuration.kms_key_name,
    }
    yield from (f"{name}={_literal(text)}" for name, text in texts.items() if text)
    if table.labels:
        labels = (f"({_literal(key)}, {_literal(value)})" for key, value in table.labels.items())
        yield f"labels=[{', '.join(labels)}]"
    if table.expires:
        yield f"expiration_timestamp=TIMESTAMP {_literal(table.expires.isoformat())}"
    if table.time_partitioning and table.time_partitioning.expiration_ms:
        lifetime = timedelta(milliseconds=table.time_partitioning.expiration_ms)
        yield f"partition_expiration_days={lifetime / timedelta(days=1)}"


def _literal(text: str) -> str:
    """JSON's escapes are GoogleSQL's, too."""
    return json.dumps(text, ensure_ascii=False)
