"""The one DDL statement of the BigQuery test server: a table made anew of its own rows."""

from datetime import datetime
from typing import Any

from sqlglot import exp

from finops_dagster_tests.servers.bigquery_catalog import Catalog, Table
from finops_dagster_tests.servers.bigquery_errors import invalid, not_supported
from finops_dagster_tests.servers.bigquery_schema import Field, Resource, schema_fields

_OPTIONS = {"description": "description", "friendly_name": "friendlyName", "labels": "labels"}
_KEPT = ("timePartitioning", "clustering")


def is_remaking(statement: exp.Expression) -> bool:
    """Whether it is CREATE OR REPLACE TABLE with a list of columns, AS a query."""
    made = isinstance(statement, exp.Create) and statement.kind == "TABLE" and statement.args
    return bool(
        made and made["replace"] and isinstance(made["this"], exp.Schema) and made["expression"]
    )


def remake_table(
    catalog: Catalog, table: Table, statement: exp.Expression, values: Resource
) -> None:
    """Puts a table of the statement's columns, with the rows of its query, in the place of `table`;
    all of it, or nothing."""
    properties = statement.args["properties"].expressions
    _check_partitioning(table, properties)
    fields = schema_fields({"fields": [_field(column) for column in statement.this.expressions]})
    kept = {name: of for name, of in table.properties.items() if name in _KEPT}
    options = dict(_option(each) for each in properties if type(each) is exp.Property)
    made = Table(table.dataset, table.table_id, fields, kept | options)
    made.version = table.version
    rows = statement.expression.sql("duckdb")
    with catalog.transaction():
        catalog.connection.execute(f"CREATE TEMP TABLE remade AS {rows}", values)
        catalog.create_empty(made)
        catalog.connection.execute(f"INSERT INTO {made.sql_name} FROM remade")
        catalog.connection.execute("DROP TABLE remade")
    made.loaded(fields)


def _check_partitioning(table: Table, properties: list[exp.Expression]) -> None:
    partitioning = table.properties.get("timePartitioning", {})
    held = [partitioning.get("type"), partitioning.get("field")]
    held += table.properties.get("clustering", {}).get("fields", [])
    asked = []
    for each in properties:
        if isinstance(each, exp.PartitionedByProperty):
            asked += [each.this.text("unit"), each.this.this.name]
        elif isinstance(each, exp.ClusterProperty):
            asked += [column.name for column in each.expressions]
    if asked != held:
        raise invalid(
            "Cannot replace a table with a different partitioning spec. Instead, DROP the table, "
            f"and then recreate it. New partitioning spec is {asked} and existing spec is {held}"
        )


def _field(column: exp.ColumnDef) -> Field:
    kind, field = column.args["kind"], {"name": column.name, "mode": "NULLABLE"}
    for constraint in column.args.get("constraints") or []:
        if isinstance(constraint.kind, exp.NotNullColumnConstraint):
            field["mode"] = "REQUIRED"
        else:
            field |= dict(map(_option, constraint.kind.expressions))
    if kind.this == exp.DataType.Type.ARRAY:
        kind, field["mode"] = kind.expressions[0], "REPEATED"
    if kind.this == exp.DataType.Type.STRUCT:
        return {**field, "type": "RECORD", "fields": [_field(each) for each in kind.expressions]}
    return {**field, "type": kind.sql("bigquery")}


def _option(option: exp.Property) -> tuple[str, Any]:
    value = option.args["value"]
    if option.name == "expiration_timestamp":
        expires = datetime.fromisoformat(value.this.name)
        return "expirationTime", str(round(expires.timestamp() * 1000))
    if option.name not in _OPTIONS:
        raise not_supported(f"the option {option.name} of a table or a column")
    if isinstance(value, exp.Array):
        return "labels", {key.name: text.name for key, text in (e.expressions for e in value)}
    return _OPTIONS[option.name], value.name
