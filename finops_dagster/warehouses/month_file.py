"""A month of the lake, as a warehouse loads it, and what databases answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.lake import parquet_relation, write_rows
from finops_dagster.tables.bill_files import AS_TEXT
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import column_type

# What DuckDB makes of a file's text where the table's column is of another type.
TEXT_TO_AMOUNT: Mapping[str, Sql] = {
    SqlType.MONEY: Sql("exact_decimal({0})"),
    SqlType.MONEY_MAP: Sql("exact_map(text_map({0}))"),
}


class WarehouseUnavailable(Exception):
    """The warehouse or the way to it failed; asking again may help."""


@dataclass(frozen=True)
class MonthFile:
    """One month of one export, ready to be loaded: the file, what its footer says, its columns, and
    the names of those that a warehouse must know, where the bill has them."""

    export: str
    table: str
    month: BillingMonth
    path: Path
    footer: LoadedVersion
    schema: pa.Schema
    cost_column: str | None
    period_column: str | None
    cluster_by: tuple[str, ...]
    user_defined_columns: tuple[str, ...] = ()
    """The columns whose names the vendor's customer chose, as those of tags."""
    currency_column: str | None = None
    duckdb: DuckDB = field(default_factory=DuckDB)
    """What to read the file with."""

    @property
    def types(self) -> dict[str, str]:
        """The type of each column: one of SqlType, or DATE."""
        return {field.name: column_type(field.type) for field in self.schema}

    @property
    def money_columns(self) -> list[str]:
        """The columns whose sums are compared: all columns of money whose sums are known, or else
        the headline cost alone."""
        names = dict.fromkeys(
            [*([self.cost_column] if self.cost_column else []), *(self.footer.totals.sums or {})]
        )
        return [name for name in names if name in self.schema.names]

    def select(self, kept: Mapping[str, str]) -> Sql:
        """Return the file's rows as SQL of DuckDB, each cell in the type that `kept` has for it."""

        def cell(name: str, given: str) -> Sql:
            kind = kept.get(name, given)
            ways = AS_TEXT if kind == SqlType.TEXT else TEXT_TO_AMOUNT
            way = ways.get(given if kind == SqlType.TEXT else kind, Sql("CAST({0} AS VARCHAR)"))
            return quoted(name) if kind == given else Sql(way.format(quoted(name)))

        cells = ", ".join(
            f"{cell(name, given)} AS {quoted(name)}" for name, given in self.types.items()
        )
        return Sql(f"SELECT {cells} FROM {parquet_relation(self.path)}")

    @contextmanager
    def converted(self, kept: Mapping[str, str]) -> Iterator[MonthFile]:
        """The month in a file whose columns have the types of `kept`, for as long as the block
        takes; the file itself where they have them already. Raises BillError."""
        if all(kept.get(name, given) == given for name, given in self.types.items()):
            yield self
            return
        with TemporaryDirectory(prefix="finops-") as folder:
            path = Path(folder) / self.path.name
            with self.duckdb.scratch(threads=1) as connection:
                prepare_casts(connection)
                write_rows(connection, self.select(kept), path, self.path)
            yield replace(self, path=path, schema=pq.read_schema(path))


def as_utc(at: Any) -> datetime:
    """Return a time as a database gives it, a text too; one without a zone is in UTC."""
    time = datetime.fromisoformat(str(at))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
