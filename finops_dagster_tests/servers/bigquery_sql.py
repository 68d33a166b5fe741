"""Queries of the BigQuery test server: GoogleSQL, run by DuckDB, answered as BigQuery's JSON."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp

from finops_dagster_tests.servers.bigquery_errors import invalid, invalid_query, not_supported
from finops_dagster_tests.servers.bigquery_tables import (
    DUCKDB_TYPES,
    LEGACY_TYPES,
    Catalog,
    Field,
    Resource,
    Table,
    schema_fields,
)

_STATEMENTS = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Create)
_RESULT_TYPES = {duckdb_type: name for name, duckdb_type in DUCKDB_TYPES.items()} | {
    "INTEGER": "INTEGER",
    "HUGEINT": "INTEGER",
    '"NULL"': "INTEGER",
}


@dataclass
class QueryResult:
    """The result of a statement: the rows of a SELECT, or nothing."""

    fields: list[Field] = field(default_factory=list)
    rows: list[Resource] = field(default_factory=list)

    def page(self, max_results: str | int | None, start: str) -> Resource:
        """Return the schema and at most `max_results` rows from the row `start`, or all if None.

        The result is a part of a REST answer, with a `pageToken` if more rows follow. It is empty
        for a statement without rows, such as INSERT.
        """
        if not self.fields:
            return {}
        end = len(self.rows) if max_results is None else int(start) + int(max_results)
        rows = self.rows[int(start) : end]
        page: Resource = {"schema": {"fields": self.fields}, "totalRows": str(len(self.rows))}
        page |= {"rows": rows} if rows else {}
        return page | ({"pageToken": str(end)} if end < len(self.rows) else {})


def run_query(catalog: Catalog, project: str, config: Resource, location: str) -> QueryResult:
    """Run the statement of a job's `query` configuration, and return its rows.

    `project` is that of tables whose name has none. Raises BigQueryError, also if a table is not in
    `location`.
    """
    statement = _parsed(config["query"])
    tables = []
    is_view = isinstance(statement, exp.Create) and statement.kind == "VIEW"
    for node in statement.find_all(exp.Table):
        is_created = is_view and node is statement.this
        find = catalog.view if is_created else catalog.table
        table = find(node.catalog or project, node.db, node.name, location)
        tables.append(table)
        node.set("catalog", None)
        node.set("db", exp.to_identifier(table.dataset.duckdb_schema, quoted=True))
        node.set("this", exp.to_identifier(table.table_id, quoted=True))
    bound = statement.expression if isinstance(statement, exp.Create) else statement
    for node in list(bound.find_all(exp.DataType)):
        if node.this == exp.DataType.Type.BIGDECIMAL:
            node.replace(_duckdb_type("BIGNUMERIC"))
    _bind_arrays(bound)
    parameters = _bind_parameters(bound, config.get("queryParameters") or [])
    try:
        if is_view:
            catalog.connection.execute(statement.sql("duckdb"))
            return QueryResult()
        if isinstance(statement, exp.Create):
            _remake_table(catalog, tables[0], statement, parameters)
            return QueryResult()
        return _run(catalog.connection, statement, parameters)
    except duckdb.Error as error:
        raise invalid_query(str(error)) from error


def _parsed(sql: str) -> exp.Expression:
    try:
        statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.errors.SqlglotError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    statement = statements[0]
    if len(statements) > 1 or not isinstance(statement, _STATEMENTS):
        raise not_supported("scripts, DDL, or anything but one SELECT or DML statement")
    if isinstance(statement, exp.Create) and not _is_remaking(statement):
        raise not_supported("DDL but CREATE OR REPLACE of a view, or a table of its own rows")
    if isinstance(statement, exp.Update | exp.Delete) and not statement.args.get("where"):
        raise invalid_query(f"{statement.key.upper()} must have a WHERE clause at [1:1]")
    return statement


def _bind_arrays(statement: exp.Expression) -> None:
    """Let UNNEST of an array in a table return the fields of its elements as columns."""
    for node in list(statement.find_all(exp.Unnest)):
        array = node.expressions[0]
        if isinstance(array, exp.Column | exp.Dot):
            depth = exp.PropertyEQ(
                this=exp.to_identifier("max_depth"), expression=exp.Literal.number(2)
            )
            rows = exp.select(exp.Anonymous(this="unnest", expressions=[array.copy(), depth]))
            node.replace(rows.subquery(*node.alias_column_names))


def _bind_parameters(statement: exp.Expression, parameters: list[Resource]) -> Resource:
    """Cast every named parameter to its type, and return the texts to bind."""
    by_name = {parameter.get("name"): parameter for parameter in parameters}
    values: Resource = {}
    for node in list(statement.find_all(exp.Parameter)):
        if node.name not in by_name:
            raise invalid_query(f"Query parameter '{node.name}' not found")
        kind = by_name[node.name]["parameterType"]["type"]
        kind = LEGACY_TYPES.get(kind, kind)
        value = by_name[node.name].get("parameterValue", {}).get("value")
        values[node.name] = None if value is None else str(value)
        node.replace(exp.Cast(this=node.copy(), to=_duckdb_type(kind)))
    return values


def _duckdb_type(type_name: str) -> exp.DataType:
    return exp.DataType.build(DUCKDB_TYPES[type_name], dialect="duckdb")


def _run(
    connection: duckdb.DuckDBPyConnection, statement: exp.Expression, values: Resource
) -> QueryResult:
    if not isinstance(statement, exp.Query):
        connection.execute(statement.sql("duckdb"), values)
        return QueryResult()
    unnamed = [node for node in statement.selects if not node.output_name and not node.is_star]
    for number, node in enumerate(unnamed):
        node.replace(exp.alias_(node.copy(), f"f{number}_"))
    relation = connection.sql(statement.sql("duckdb"), params=values)
    fields = list(map(_result_field, relation.columns, relation.types))
    cells = [
        [_cell(value, field) for value in column.to_pylist()]
        for column, field in zip(relation.to_arrow_table().columns, fields, strict=True)
    ]
    return QueryResult(fields, [{"f": list(row)} for row in zip(*cells, strict=True)])


def _result_field(name: str, duckdb_type: Any) -> Field:
    """Return the field of a result column; lists of structs are REPEATED RECORDs."""
    if duckdb_type.id == "list" and duckdb_type.child.id == "struct":
        return {**_result_field(name, duckdb_type.child), "mode": "REPEATED"}
    field = {"name": name, "mode": "NULLABLE"}
    if duckdb_type.id == "struct":
        inside = [_result_field(*child) for child in duckdb_type.children]
        return {**field, "type": "RECORD", "fields": inside}
    kind = "BIGNUMERIC" if duckdb_type.id == "decimal" else _RESULT_TYPES.get(str(duckdb_type))
    if kind is None:
        raise not_supported(f"result columns of DuckDB's type {duckdb_type}")
    return {**field, "type": kind}


def _cell(value: Any, field: Field) -> Resource:
    """Return a value as BigQuery's JSON, in which an array that is NULL has no elements."""
    if field["mode"] == "REPEATED":
        element = {**field, "mode": "NULLABLE"}
        return {"v": [_cell(entry, element) for entry in value or []]}
    if field["type"] == "RECORD" and value is not None:
        return {"v": {"f": [_cell(value[inner["name"]], inner) for inner in field["fields"]]}}
    return {"v": _json_value(value, field["type"])}


def _json_value(value: Any, type_name: str) -> str | None:
    if value is None:
        return None
    if type_name == "BIGNUMERIC":
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if type_name == "TIMESTAMP":
        return str(round(value.timestamp() * 1_000_000))
    if type_name == "BOOLEAN":
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _is_remaking(statement: exp.Create) -> bool:
    """Return whether a statement is CREATE OR REPLACE of a view or of a table, AS a query.

    The table must have columns.
    """
    parts = statement.args
    is_complete = isinstance(parts["this"], exp.Schema) or statement.kind == "VIEW"
    return bool(parts["replace"] and is_complete and parts["expression"])


def _remake_table(catalog: Catalog, table: Table, statement: exp.Create, values: Resource) -> None:
    """Replace a table by one with the statement's columns and the rows of its query, or not at all.

    BigQuery refuses another partitioning or clustering than the table has.
    """
    properties = statement.args["properties"].expressions
    partitioning = table.properties.get("timePartitioning", {})
    existing = [partitioning.get("type"), partitioning.get("field")]
    existing += table.properties.get("clustering", {}).get("fields", [])
    requested: list[str] = []
    for item in properties:
        if isinstance(item, exp.PartitionedByProperty):
            requested += [item.this.text("unit"), item.this.this.name]
        elif isinstance(item, exp.ClusterProperty):
            requested += [column.name for column in item.expressions]
    if requested != existing:
        raise invalid(
            "Cannot replace a table with a different partitioning spec. Instead, DROP the table, "
            f"and then recreate it. New partitioning spec is {requested} and existing spec is "
            f"{existing}"
        )
    fields = schema_fields({"fields": [_field(column) for column in statement.this.expressions]})
    layout = {name: table.properties.get(name) for name in ("timePartitioning", "clustering")}
    options = dict(_option(item) for item in properties if type(item) is exp.Property)
    new_table = Table(table.dataset, table.table_id, fields, layout | options)
    new_table.version = table.version + 1
    with catalog.transaction():
        rows = statement.expression.sql("duckdb")
        catalog.connection.execute(f"CREATE TEMP TABLE remade AS {rows}", values)
        catalog.create_empty(new_table)
        catalog.connection.execute(f"INSERT INTO {new_table.sql_name} FROM remade")
        catalog.connection.execute("DROP TABLE remade")
    table.dataset.tables[table.table_id] = new_table


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
        return {
            **field,
            "type": "RECORD",
            "fields": [_field(column) for column in kind.expressions],
        }
    return {**field, "type": kind.sql("bigquery")}


def _option(option: exp.Property) -> tuple[str, Any]:
    value = option.args["value"]
    if option.name == "expiration_timestamp":
        expires = datetime.fromisoformat(value.this.name)
        return "expirationTime", str(round(expires.timestamp() * 1000))
    if option.name == "labels":
        return "labels", {key.name: text.name for key, text in (e.expressions for e in value)}
    if option.name != "description":
        raise not_supported(f"the option {option.name} of a table or a column")
    return option.name, value.name
