"""The types of a warehouse's columns."""

from __future__ import annotations

from typing import NamedTuple

from finops_dagster.billing.columns import Sql

COUNT = "BIGINT"
"""The data type of a count of rows, which only a ledger has."""


class ColumnType(NamedTuple):
    """A data type in one warehouse.

    `to_text`, `from_text` and `digest_text` are the warehouse's SQL, in which `{0}` is the cell.
    """

    native: Sql
    """The native type: the name that `BaseDialect.read_columns` returns."""
    to_text: Sql = Sql("")
    """The cell as the text that DuckDB writes for it; empty if a column never becomes text."""
    from_text: Sql = Sql("")
    """The text in the cell as a value of this type; empty if text is never read as this type.

    For a text that is no such value it is NULL, or the query fails.
    """
    digest_text: Sql = Sql("{0}")
    """The text whose MD5 is taken, as `tables.digest.md5_text` defines it; only for MD5 digests."""
    duckdb_cast: Sql = Sql("{0}")
    """DuckDB's SQL of the value that the client sends; `{0}` is the cell in the file."""

    @classmethod
    def of(cls, native: str, to_text: str = "", **expressions: str) -> ColumnType:
        """Return the type with these texts as its fields; `expressions` are those after `to_text`.

        A field that is left out has its default. The texts become SQL without a check, so they
        must be constants of the program.
        """
        return cls(
            Sql(native), Sql(to_text), **{field: Sql(text) for field, text in expressions.items()}
        )
