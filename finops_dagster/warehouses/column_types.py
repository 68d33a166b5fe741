"""The types of a warehouse's columns."""

from __future__ import annotations

from typing import NamedTuple

from finops_dagster.billing.columns import Sql

COUNT = "BIGINT"


class ColumnType(NamedTuple):
    """A SqlType, DATE or COUNT in a warehouse: its name there, and SQL of a cell, `{0}`."""

    name_there: Sql
    as_text: Sql = Sql("")
    """How a cell of the table becomes the text that DuckDB would make of it, if it can."""
    read_as: Sql = Sql("")
    """How a text is read as this type, or as NULL, if it can be."""
    digest: Sql = Sql("{0}")
    """The text of which an MD5 is taken, as `md5_text` has it."""
    way_in: Sql = Sql("{0}")
    """What DuckDB makes of a cell on its way in."""


def typed(name_there: str, as_text: str = "", **more: str) -> ColumnType:
    """Return a type in the program's own words, and nobody else's."""
    return ColumnType(
        Sql(name_there), Sql(as_text), **{what: Sql(text) for what, text in more.items()}
    )
