"""The types of a warehouse's columns."""

from __future__ import annotations

from typing import NamedTuple

from finops_dagster.billing.columns import Sql

COUNT = "BIGINT"
"""The data type of a count of rows, which the ledger alone has."""


class ColumnType(NamedTuple):
    """A data type in one warehouse; in each expression `{0}` is the cell."""

    native: Sql
    """The warehouse's name of the type."""
    to_text: Sql = Sql("")
    """The cell as the text that DuckDB writes for it; empty where a column never becomes text."""
    from_text: Sql = Sql("")
    """The text as a value of this type, NULL where it is none; empty where none can be read."""
    digest_text: Sql = Sql("{0}")
    """The text whose MD5 is taken, as `tables.digest.md5_text` defines it."""
    duckdb_cast: Sql = Sql("{0}")
    """The value that DuckDB reads from the file and the client sends."""

    @classmethod
    def of(cls, native: str, to_text: str = "", **expressions: str) -> ColumnType:
        """Return a type whose names and expressions are constants of the program."""
        return cls(
            Sql(native), Sql(to_text), **{field: Sql(text) for field, text in expressions.items()}
        )
