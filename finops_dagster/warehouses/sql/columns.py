"""A bill's columns in a destination of dlt: their types, and what those become over months."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns

from finops_dagster.billing.columns import Sql, SqlType, type_over_months
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE, MAPS, column_type
from finops_dagster.tables.parquet_text import time_as_text
from finops_dagster.warehouses.base import MonthFile

# By sqlglot's name of the dialect: the text of a cell, and how a column becomes that text within a
# transaction. A map is text everywhere but in DuckDB.
_AS_TEXT = {
    "duckdb": {
        SqlType.TIME: time_as_text(Sql("{0} AT TIME ZONE 'UTC'")),
        SqlType.TEXT_MAP: "CAST({0} AS VARCHAR)",
    },
    "postgres": {
        SqlType.TIME: "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'",
    },
    "sqlite": {
        SqlType.TIME: "rtrim(rtrim(replace({0}, ' ', 'T'), '0'), '.') || 'Z'",
    },
}
_IN_PLACE = ("ALTER TABLE {table} ALTER {column} TYPE VARCHAR USING {cell}",)
_MAKE_TEXT = {
    "duckdb": _IN_PLACE,
    "postgres": _IN_PLACE,
    "sqlite": (
        "ALTER TABLE {table} ADD COLUMN {new} TEXT",
        "UPDATE {table} SET {new} = {cell}",
        "ALTER TABLE {table} DROP COLUMN {column}",
        "ALTER TABLE {table} RENAME COLUMN {new} TO {column}",
    ),
}


@dataclass(frozen=True)
class Widening:
    """What a month asks of its table: the types of its columns until it is loaded, `held`, and
    then, `kept`, as DuckDB names them; the columns of its file that are text in the table; and what
    somebody should know."""

    held: Mapping[str, str]
    kept: Mapping[str, str]
    brought_as_text: Sequence[str]
    warnings: Sequence[str]

    @property
    def becoming_text(self) -> dict[str, str]:
        """The columns that become text, and what they are until then."""
        return {name: kind for name, kind in self.held.items() if kind != self.kept[name]}


def widening(
    file: MonthFile,
    table: str,
    dialect: str | None,
    name_of: Callable[[str], str],
    there: TTableSchemaColumns,
    known: TTableSchemaColumns,
) -> Widening:
    """What the month asks of a table whose columns are `there`, of which dlt has stored `known`.

    Raises BillError for a column that can be neither type, or is of none of a bill's, and where
    this destination cannot make text of one.
    """
    held, kept, brought_as_text, warnings = {}, {}, [], []
    for field in file.schema:
        name, given = name_of(field.name), column_type(field.type)
        column = there.get(name.lower())
        was = _kind_held(column, known.get(name), given, dialect) if column else given
        is_held = column is None or _holds(column, dlt_type(was, dialect))
        kind = type_over_months(was, given) if is_held else None
        if kind is None or not (kind == was or _can_be_text(was, dialect)):
            is_now = was if is_held or column is None else _named(column)
            raise BillError(
                f"column {name} of {table} is {is_now}, the month's is {given}; give the export "
                "another table or change it"
            )
        held[name], kept[name] = was, kind
        if kind != given:
            brought_as_text.append(field.name)
        if kind != was:
            warnings.append(f"{name} was {was}, {file.month} gives {given}: it is text now")
        elif kind != given:
            warnings.append(f"{name} stays {was}, {file.month} gives {given}")
    return Widening(held, kept, brought_as_text, warnings)


def has_decimals(dialect: str | None) -> bool:
    """SQLite has none: a DECIMAL is a float there. Amounts are kept as text, exactly."""
    return dialect != "sqlite"


def dlt_type(kind: str, dialect: str | None) -> TColumnSchema:
    """What dlt is told of a column of one of DuckDB's types."""
    if kind == SqlType.MONEY and has_decimals(dialect):
        return {"data_type": "decimal", "precision": 38, "scale": 18}
    if kind == SqlType.TIME:
        return {"data_type": "timestamp"}
    if kind == DATE:
        return {"data_type": "date"}
    # DuckDB's JSON is text that is known to be JSON. Elsewhere dlt's ways to such types differ:
    # SQLAlchemy quotes it once more, ADBC cannot write jsonb, others make floats of it.
    return {"data_type": "json" if kind in MAPS and dialect == "duckdb" else "text"}


def making_text(dialect: str | None, table: Sql, column: Sql, new: Sql, kind: str) -> list[Sql]:
    """The statements that make text of a column; names are quoted, `new` is one that is free."""
    if dialect is None or _is_text(kind, dialect):
        return []
    cell = _AS_TEXT[dialect][SqlType(kind)].format(column)
    return [
        Sql(statement.format(table=table, column=column, new=new, cell=cell))
        for statement in _MAKE_TEXT[dialect]
    ]


def _kind_held(
    column: TColumnSchema, known: TColumnSchema | None, given: str, dialect: str | None
) -> str:
    """The type of a column that is there: what dlt has stored of it, but text where a load made
    text of it and was killed before it could tell dlt."""
    stored = str(known["description"]) if known else given
    may_be_text = known and stored in (SqlType.TIME, SqlType.TEXT_MAP)
    is_text = column["data_type"] == "text" and not _is_text(stored, dialect)
    return SqlType.TEXT if may_be_text and is_text else stored


def _is_text(kind: str, dialect: str | None) -> bool:
    return dlt_type(kind, dialect)["data_type"] == "text"


def _can_be_text(kind: str, dialect: str | None) -> bool:
    return _is_text(kind, dialect) or kind in _AS_TEXT.get(dialect or "", {})


def _holds(held: TColumnSchema, asked: TColumnSchema) -> bool:
    """Whether the column that is there keeps what is asked for, to the last digit."""
    if asked["data_type"] == "decimal":
        scale = held.get("scale")
        return held["data_type"] == "decimal" and (scale is None or scale >= 18)
    return held["data_type"] == asked["data_type"]


def _named(held: TColumnSchema) -> str:
    """dlt's name of the type, with its digits where they are too few."""
    if held["data_type"] != "decimal":
        return str(held["data_type"])
    return f"decimal({held.get('precision')},{held.get('scale')})"
