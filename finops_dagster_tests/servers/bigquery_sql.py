"""Queries of the BigQuery test server: GoogleSQL in, DuckDB's rows out as BigQuery's JSON."""

import base64
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import duckdb
import sqlglot
from sqlglot import TokenType, exp

from finops_dagster_tests.servers.bigquery_catalog import Catalog, Table
from finops_dagster_tests.servers.bigquery_ddl import is_remaking, remake_table
from finops_dagster_tests.servers.bigquery_errors import invalid, invalid_query, not_supported
from finops_dagster_tests.servers.bigquery_schema import (
    DUCKDB_TYPES,
    Field,
    Resource,
    legacy_type_name,
)

_STATEMENTS = {
    exp.Query: "SELECT",
    exp.Insert: "INSERT",
    exp.Update: "UPDATE",
    exp.Delete: "DELETE",
    exp.Merge: "MERGE",
    exp.Create: "CREATE_TABLE_AS_SELECT",
}
_RESULT_TYPES = {duckdb_type: name for name, duckdb_type in DUCKDB_TYPES.items()} | {
    "INTEGER": "INTEGER",
    "HUGEINT": "INTEGER",
    '"NULL"': "INTEGER",
}


@dataclass
class QueryResult:
    """What a statement gave: rows for a SELECT, else the number of rows that it changed."""

    statement_type: str
    fields: list[Field]
    rows: list[Resource]
    affected_rows: int | None = None
    location: str | None = None

    def statistics(self) -> Resource:
        """The ``query`` statistics of the job."""
        return {"statementType": self.statement_type, **self._affected()}

    def page(self, max_results: str | int | None, start: str) -> Resource:
        """The schema and some rows of a SELECT, or the number of rows that DML changed."""
        if self.affected_rows is not None:
            return self._affected()
        end = len(self.rows) if max_results is None else int(start) + int(max_results)
        rows = self.rows[int(start) : end]
        page: Resource = {"schema": {"fields": self.fields}, "totalRows": str(len(self.rows))}
        page |= {"rows": rows} if rows else {}
        return page | ({"pageToken": str(end)} if end < len(self.rows) else {})

    def _affected(self) -> Resource:
        changed = self.affected_rows
        return {} if changed is None else {"numDmlAffectedRows": str(changed)}


def run_query(
    catalog: Catalog, project: str, config: Resource, location: str | None
) -> QueryResult:
    """Runs the statement of a ``query`` configuration, in the location of its tables."""
    if config.get("dryRun") or config.get("destinationTable"):
        raise not_supported("dry runs and destination tables of queries")
    statement = _parsed(_with_named_parameters(config["query"]))
    default = config.get("defaultDataset") or {}
    tables = []
    for node in _table_nodes(statement, default):
        names = (node.catalog or project, node.db or default["datasetId"], node.name)
        tables.append(_bind_table(node, catalog.table(*names, location)))
    bound = statement.expression if isinstance(statement, exp.Create) else statement
    _bind_types(bound)
    _bind_arrays(bound)
    parameters = _bind_parameters(bound, config.get("queryParameters") or [])
    try:
        if isinstance(statement, exp.Create):
            remake_table(catalog, tables[0], statement, parameters)
            result = QueryResult(str(_statement_type(statement)), [], [])
        else:
            result = _run(catalog.connection, statement, parameters)
    except duckdb.Error as error:
        raise invalid_query(str(error)) from error
    result.location = tables[0].dataset.location if tables else None
    return result


def select_rows(connection: duckdb.DuckDBPyConnection, sql: str, values: Resource) -> QueryResult:
    """Runs a SELECT that is already in DuckDB's dialect."""
    relation = connection.sql(sql, params=values)
    fields = list(map(_result_field, relation.columns, relation.types))
    table = relation.to_arrow_table()
    cells = [
        [_cell(value, field) for value in column.to_pylist()]
        for column, field in zip(table.columns, fields, strict=True)
    ]
    rows = [{"f": list(row)} for row in zip(*cells, strict=True)]
    return QueryResult("SELECT", fields, rows)


def _with_named_parameters(sql: str) -> str:
    """Numbers the ``?`` of positional parameters: @_1, @_2, in the order of the text."""
    try:
        tokens = sqlglot.tokenize(sql, read="bigquery")
    except sqlglot.errors.TokenError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    marks = [token.start for token in tokens if token.token_type == TokenType.PLACEHOLDER]
    for number, start in reversed(list(enumerate(marks, start=1))):
        sql = f"{sql[:start]}@_{number}{sql[start + 1 :]}"
    return sql


def _parsed(sql: str) -> exp.Expression:
    try:
        statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.errors.ParseError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    statement = statements[0]
    is_one = len(statements) == 1 and statement is not None and _statement_type(statement)
    if not is_one or (isinstance(statement, exp.Create) and not is_remaking(statement)):
        raise not_supported("scripts, DDL, or anything but one SELECT or DML statement")
    if isinstance(statement, exp.Update | exp.Delete) and not statement.args.get("where"):
        raise invalid_query(f"{_statement_type(statement)} must have a WHERE clause at [1:1]")
    if isinstance(statement, exp.Delete) and not statement.this:
        # DELETE t WHERE ... is GoogleSQL, but sqlglot reads t as in MySQL's DELETE t FROM ...
        statement.set("this", statement.args["tables"][0])
        statement.set("tables", None)
    return statement


def _statement_type(statement: exp.Expression) -> str | None:
    return next((name for kind, name in _STATEMENTS.items() if isinstance(statement, kind)), None)


def _table_nodes(statement: exp.Expression, default: Resource) -> list[exp.Table]:
    ctes = {cte.alias.lower() for cte in statement.find_all(exp.CTE)}
    nodes = [node for node in statement.find_all(exp.Table) if node.name.lower() not in ctes]
    for node in nodes:
        if not node.db and not default:
            unqualified = f'Table "{node.name}" must be qualified with a dataset'
            raise invalid(f"{unqualified} (e.g. dataset.table).")
    return nodes


def _bind_table(node: exp.Table, table: Table) -> Table:
    """Points a table of the statement at its DuckDB table."""
    node.set("catalog", None)
    node.set("db", exp.to_identifier(table.dataset.duckdb_schema, quoted=True))
    node.set("this", exp.to_identifier(table.table_id, quoted=True))
    return table


def _bind_types(statement: exp.Expression) -> None:
    """Keeps types as in BigQuery, where DuckDB has a NUMERIC of its own and makes dates moments."""
    exact = {exp.DataType.Type.DECIMAL: "NUMERIC", exp.DataType.Type.BIGDECIMAL: "BIGNUMERIC"}
    for node in list(statement.find_all(exp.DataType)):
        if node.this in exact:
            node.replace(_duckdb_type(exact[node.this]))
    # The innermost come last, and have to be replaced before what is around them is copied.
    for call in reversed(list(statement.find_all(exp.DateTrunc, exp.DateAdd, exp.DateSub))):
        call.replace(exp.cast(call.copy(), "date"))


def _bind_arrays(statement: exp.Expression) -> None:
    """Makes UNNEST of an array in a table give the fields of its elements as columns."""
    for node in list(statement.find_all(exp.Unnest)):
        array = node.expressions[0]
        if node.args.get("offset"):
            raise not_supported("UNNEST with OFFSET")
        if isinstance(array, exp.Column | exp.Dot):
            depth = exp.PropertyEQ(
                this=exp.to_identifier("max_depth"), expression=exp.Literal.number(2)
            )
            rows = exp.select(exp.Anonymous(this="unnest", expressions=[array.copy(), depth]))
            node.replace(rows.subquery(*node.alias_column_names))


def _bind_parameters(statement: exp.Expression, parameters: list[Resource]) -> Resource:
    """Casts every parameter to its type; returns the texts to bind."""
    given = {each.get("name") or f"_{number}": each for number, each in enumerate(parameters, 1)}
    values: Resource = {}
    for node in list(statement.find_all(exp.Parameter)):
        if node.name not in given:
            raise invalid_query(f"Query parameter '{node.name}' not found")
        type_name = legacy_type_name(given[node.name]["parameterType"]["type"])
        if type_name not in DUCKDB_TYPES:
            raise not_supported(f"query parameters of type {type_name}")
        value = given[node.name].get("parameterValue", {}).get("value")
        values[node.name] = None if value is None else str(value)
        node.replace(exp.Cast(this=node.copy(), to=_duckdb_type(type_name)))
    return values


def _duckdb_type(type_name: str) -> exp.DataType:
    return exp.DataType.build(DUCKDB_TYPES[type_name], dialect="duckdb")


def _run(
    connection: duckdb.DuckDBPyConnection, statement: exp.Expression, values: Resource
) -> QueryResult:
    if isinstance(statement, exp.Query):
        _name_columns(statement)
        return select_rows(connection, statement.sql("duckdb"), values)
    changed = connection.execute(statement.sql("duckdb"), values).fetchall()
    return QueryResult(str(_statement_type(statement)), [], [], affected_rows=int(changed[0][0]))


def _name_columns(statement: exp.Query) -> None:
    """Names the expressions of a SELECT that have no name: f0_, f1_."""
    unnamed = [node for node in statement.selects if not node.output_name and not node.is_star]
    for number, node in enumerate(unnamed):
        node.replace(exp.alias_(node.copy(), f"f{number}_"))


def _result_field(name: str, duckdb_type: Any) -> Field:
    """A column of the result, whose nested ones are REPEATED RECORDs or RECORDs."""
    if duckdb_type.id == "list" and duckdb_type.child.id == "struct":
        return {**_result_field(name, duckdb_type.child), "mode": "REPEATED"}
    field = {"name": name, "mode": "NULLABLE"}
    if duckdb_type.id == "struct":
        return {
            **field,
            "type": "RECORD",
            "fields": list(starmap(_result_field, duckdb_type.children)),
        }
    return {**field, "type": _result_type(duckdb_type)}


def _result_type(duckdb_type: Any) -> str:
    name = str(duckdb_type)
    if name.startswith("DECIMAL"):
        return "NUMERIC" if int(name.rstrip(")").split(",")[1]) <= 9 else "BIGNUMERIC"
    if name not in _RESULT_TYPES:
        raise not_supported(f"result columns of DuckDB's type {name}")
    return _RESULT_TYPES[name]


def _cell(value: Any, field: Field) -> Resource:
    """A value in the JSON of BigQuery's rows, where an array that is NULL has no elements."""
    if field["mode"] == "REPEATED":
        element = {**field, "mode": "NULLABLE"}
        return {"v": [_cell(each, element) for each in value or []]}
    if field["type"] == "RECORD" and value is not None:
        return {"v": {"f": [_cell(value[inner["name"]], inner) for inner in field["fields"]]}}
    return {"v": _json_value(value, field["type"])}


def _json_value(value: Any, type_name: str) -> str | None:
    if value is None:
        return None
    if type_name in ("NUMERIC", "BIGNUMERIC"):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if type_name == "TIMESTAMP":
        return str(round(value.timestamp() * 1_000_000))
    if type_name == "BYTES":
        return base64.b64encode(value).decode()
    if type_name == "BOOLEAN":
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
