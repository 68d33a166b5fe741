"""A table of BigQuery that is made anew, so that some of its columns are text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from google.cloud.bigquery import SchemaField, Table

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE, MAPS
from finops_dagster.warehouses.dialect import COUNT, texts

TYPES: Mapping[str, Sql] = texts(
    {
        SqlType.TEXT: "STRING",
        SqlType.MONEY: "BIGNUMERIC",
        SqlType.TIME: "TIMESTAMP",
        SqlType.TEXT_MAP: "ARRAY<STRUCT<key STRING, value STRING>>",
        SqlType.MONEY_MAP: "ARRAY<STRUCT<key STRING, value BIGNUMERIC>>",
        DATE: "DATE",
        COUNT: "INT64",
    }
)
# An array without elements may be a map that was NULL, or a month that did not have the column, so
# its text is NULL.
AS_TEXT: Mapping[str, Sql] = texts(
    {
        SqlType.TIME: "CONCAT(RTRIM(RTRIM(FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6S', {0}), '0'), "
        "'.'), 'Z')",
        SqlType.TEXT_MAP: "(SELECT CONCAT('{{', STRING_AGG(CONCAT(TO_JSON_STRING(key), ':', "
        "COALESCE(TO_JSON_STRING(value), 'null')), ',' ORDER BY key), '}}') FROM UNNEST({0}))",
    }
)


def in_backticks(name: str) -> Sql:
    """A name as an identifier of GoogleSQL, in which one may have dots and a backslash escapes."""
    return Sql("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`")


def field_of(name: str, kind: str, mode: str = "NULLABLE") -> SchemaField:
    """Return the column that a load makes of the file's; a map is an array of its keys and
    values."""
    if kind not in MAPS:
        return SchemaField(name, TYPES[kind], mode)
    value = "BIGNUMERIC" if kind == SqlType.MONEY_MAP else "STRING"
    inside = (SchemaField("key", "STRING", "REQUIRED"), SchemaField("value", value))
    return SchemaField(name, "RECORD", "REPEATED", fields=inside)


def type_named(field: SchemaField) -> str:
    """Return the type as SQL writes it: `ARRAY<STRUCT<key STRING, value STRING>>`."""
    inside = ", ".join(f"{each.name} {type_named(each)}" for each in field.fields)
    return _in_array(field, f"STRUCT<{inside}>" if inside else str(field.field_type))


def rewriting(table: Table, becoming_text: Mapping[str, str]) -> Sql:
    """The statement that makes the table anew, in one step, with text for some of its columns.

    BigQuery makes text of no such column in place. What would be lost is written down: modes,
    descriptions, labels, key, and when something expires. Raises BillError for policy tags, which
    no statement can write.
    """
    for field in table.schema:
        if field.policy_tags and field.policy_tags.names:
            raise BillError(
                f"column {next(iter(becoming_text))} of {table.reference} has to become text, for "
                f"which the table is made anew, and {field.name} would lose its policy tags; take "
                "them off, run the month again, and put them on again"
            )
    cells = {name: AS_TEXT[kind].format(in_backticks(name)) for name, kind in becoming_text.items()}
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


def _definition(field: SchemaField) -> str:
    """The column as a table is made with it, where its fields have modes and descriptions."""
    inside = ", ".join(map(_definition, field.fields))
    name = _in_array(field, f"STRUCT<{inside}>" if inside else str(field.field_type))
    required = " NOT NULL" if field.mode == "REQUIRED" else ""
    told = f" OPTIONS(description={_literal(field.description)})" if field.description else ""
    return f"{in_backticks(field.name)} {name}{required}{told}"


def _in_array(field: SchemaField, name: str) -> str:
    return f"ARRAY<{name}>" if field.mode == "REPEATED" else name


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
