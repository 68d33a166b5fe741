"""The statement that rebuilds a table of BigQuery with some columns as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta

from google.cloud.bigquery import SchemaField, Table

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError


def in_backticks(name: str) -> Sql:
    """Return a name, or `project.dataset.table`, as one quoted identifier of GoogleSQL."""
    return Sql("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`")


def type_sql(field: SchemaField) -> str:
    """Return a field's type in SQL, such as `ARRAY<STRUCT<key STRING, value STRING>>`.

    Precision, scale and length are left out: `NUMERIC(10, 2)` is `NUMERIC`.
    """
    return _type(field, [f"{nested.name} {type_sql(nested)}" for nested in field.fields])


def rebuild_statement(table: Table, cells_as_text: Mapping[str, Sql]) -> Sql:
    """Return the statement that rebuilds the table with some columns as text.

    `cells_as_text` has the SQL of the new text by column. BigQuery cannot change a time or a map to
    text in place. The statement partitions by month. It keeps clustering, descriptions, labels,
    encryption key, expirations, and the modes of the other columns: a new text may be NULL. What
    else was set for the table, such as the precision of a type, is lost. Raises BillError for
    policy tags, which no statement can write.
    """
    for field in table.schema:
        if field.policy_tags and field.policy_tags.names:
            raise BillError(
                f"column {next(iter(cells_as_text))} of {table.reference} must become text; that "
                f"rebuilds the table, and column {field.name} would lose its policy tags; remove "
                "them, run the month again, and add them again"
            )
    columns = ", ".join(
        _definition(SchemaField(f.name, "STRING", description=f.description))
        if f.name in cells_as_text
        else _definition(f)
        for f in table.schema
    )
    cells = ", ".join(f"{cell} AS {in_backticks(name)}" for name, cell in cells_as_text.items())
    clusters = ", ".join(map(in_backticks, table.clustering_fields or ()))
    name, options = in_backticks(str(table.reference)), ", ".join(_options(table))
    field = table.time_partitioning.field if table.time_partitioning else None
    month = Sql(f"DATE_TRUNC({field or 'billing_month'}, MONTH)")
    return Sql(
        f"CREATE OR REPLACE TABLE {name} ({columns}) "
        f"PARTITION BY {month} "
        + (f"CLUSTER BY {clusters} " if clusters else "")
        + f"OPTIONS({options}) AS SELECT * REPLACE ({cells}) FROM {name}"
    )


def _definition(field: SchemaField) -> str:
    """Return a column's definition with the modes and descriptions of its nested fields."""
    required = " NOT NULL" if field.mode == "REQUIRED" else ""
    options = f" OPTIONS(description={_literal(field.description)})" if field.description else ""
    field_type = _type(field, map(_definition, field.fields))
    return f"{in_backticks(field.name)} {field_type}{required}{options}"


def _type(field: SchemaField, nested_fields: Iterable[str]) -> str:
    fields = ", ".join(nested_fields)
    field_type = f"STRUCT<{fields}>" if fields else str(field.field_type)
    return f"ARRAY<{field_type}>" if field.mode == "REPEATED" else field_type


def _options(table: Table) -> Iterable[str]:
    key = table.encryption_configuration and table.encryption_configuration.kms_key_name
    texts = {"friendly_name": table.friendly_name, "description": table.description}
    for name, text in {**texts, "kms_key_name": key}.items():
        if text:
            yield f"{name}={_literal(text)}"
    if table.labels:
        labels = (f"({_literal(key)}, {_literal(value)})" for key, value in table.labels.items())
        yield f"labels=[{', '.join(labels)}]"
    if table.expires:
        yield f"expiration_timestamp=TIMESTAMP {_literal(table.expires.isoformat())}"
    if table.time_partitioning and table.time_partitioning.expiration_ms:
        lifetime = timedelta(milliseconds=table.time_partitioning.expiration_ms)
        yield f"partition_expiration_days={lifetime / timedelta(days=1)}"


def _literal(text: str) -> str:
    # GoogleSQL knows the escapes of JSON.
    return json.dumps(text, ensure_ascii=False)
