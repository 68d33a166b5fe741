"""The types of a warehouse's columns."""

from __future__ import annotations

from typing import NamedTuple

from finops_dagster.billing.columns import Sql

COUNT = "BIGINT"


class ColumnType(NamedTuple):
    """A SqlType, DATE or COUNT in a warehouse: its name there, and SQL of a cell, `{0}`."""

    native: Sql
    to_text: Sql = Sql("")
    """How a cell of the table becomes the text that DuckDB would make of it, if it can."""
    from_text: Sql = Sql("")
    """How a text is read as this type, or as NULL, if it can be."""
    digest_text: Sql = Sql("{0}")
    """The text of which an MD5 is taken, as `md5_text` has it."""
    duckdb_cast: Sql = Sql("{0}")
    """What DuckDB makes of a cell on its way in."""

    @classmethod
    def of(cls, native: str, to_text: str = "", **expressions: str) -> ColumnType:
        """Return a type in the program's own words, and nobody else's."""
        return cls(
            Sql(native), Sql(to_text), **{field: Sql(text) for field, text in expressions.items()}
        )
