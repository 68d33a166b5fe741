"""A table of BigQuery that is made anew, so that some of its columns are text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta

from google.cloud.bigquery import SchemaField, Table

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError


def in_backticks(name: str) -> Sql:
    """Return a name as an identifier of GoogleSQL, in which one may have dots and a backslash
    escapes."""
    return Sql("`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`")


def type_sql(field: SchemaField) -> str:
    """Return the type as SQL writes it: `ARRAY<STRUCT<key STRING, value STRING>>`."""
    return _type(field, [f"{each.name} {type_sql(each)}" for each in field.fields])


def rebuild_statement(table: Table, texts: Mapping[str, Sql]) -> Sql:
    """Return the statement that makes the table anew, in one step, with `texts` in the place of
    columns.

    BigQuery makes text of a time or a map in no other way. What would be lost is written down:
    modes, descriptions, labels, key, and when something expires. Raises BillError for policy tags,
    which no statement can write.
    """
    for field in table.schema:
        if field.policy_tags and field.policy_tags.names:
            raise BillError(
                f"column {next(iter(texts))} of {table.reference} has to become text, for which "
                f"the table is made anew, and {field.name} would lose its policy tags; take them "
                "off, run the month again, and put them on again"
            )
    columns = ", ".join(
        _definition(SchemaField(f.name, "STRING", description=f.description))
        if f.name in texts
        else _definition(f)
        for f in table.schema
    )
    cells = ", ".join(f"{cell} AS {in_backticks(column)}" for column, cell in texts.items())
    clusters = ", ".join(map(in_backticks, table.clustering_fields or ()))
    name, options = in_backticks(str(table.reference)), ", ".join(_options(table))
    return Sql(
        f"CREATE OR REPLACE TABLE {name} ({columns}) "
        "PARTITION BY DATE_TRUNC(billing_month, MONTH) "
        + (f"CLUSTER BY {clusters} " if clusters else "")
        + f"OPTIONS({options}) AS SELECT * REPLACE ({cells}) FROM {name}"
    )


def _definition(field: SchemaField) -> str:
    """Return the column as a table is made with it, where its fields have modes and descriptions
    too."""
    required = " NOT NULL" if field.mode == "REQUIRED" else ""
    options = f" OPTIONS(description={_literal(field.description)})" if field.description else ""
    kind = _type(field, map(_definition, field.fields))
    return f"{in_backticks(field.name)} {kind}{required}{options}"


def _type(field: SchemaField, inside: Iterable[str]) -> str:
    fields = ", ".join(inside)
    kind = f"STRUCT<{fields}>" if fields else str(field.field_type)
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


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
    """JSON's escapes are GoogleSQL's, too."""
    return json.dumps(text, ensure_ascii=False)
