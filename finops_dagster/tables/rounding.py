"""How many cells of a month have more than 18 decimals, and by how much rounding changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import duckdb

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.billing.money import RoundedColumn
from finops_dagster.tables.bill_files import BillFiles

_LAST_DECIMAL = Decimal("1e-18")
# No number in a cell is so long, nor is a sum of them: nothing of the sums is rounded.
_DIGITS = 1_000_000


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, or of maps with numbers: its header in the files, its name in the
    table. Where it `is_rounded`, text of more than 18 decimals is; doubles are everywhere."""

    header: str
    name: str
    type: SqlType
    is_money: bool
    is_rounded: bool


def count_cells_to_round(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[BillFiles],
    columns: Sequence[NumberColumn],
) -> tuple[RoundedColumn, ...]:
    """Count in each column the numbers of more than 18 decimals that are rounded, and of money sum
    what that changes; columns without such numbers are left out."""
    rounded: dict[str, RoundedColumn] = {}
    for group in files:
        present = [
            column
            for column in columns
            if column.header in group and (column.is_rounded or group.has_doubles(column.header))
        ]
        if not present:
            continue
        cells = ", ".join(
            f"{group.finer(column.header, column.type)} AS n{int(number)}"
            for number, column in enumerate(present)
        )
        sums = ", ".join(_sums(number, column.is_money) for number, column in enumerate(present))
        row = connection.execute(
            f"SELECT {sums} FROM (SELECT {cells} FROM {group.scan()})"
        ).fetchone()
        assert row is not None
        for number, column in enumerate(present):
            count, changed, longest = row[3 * number : 3 * number + 3]
            if count:
                before = rounded.get(column.name, RoundedColumn(column.name, 0))
                amount = _add(before.amount, changed, longest) if column.is_money else None
                rounded[column.name] = RoundedColumn(column.name, before.cells + count, amount)
    return tuple(rounded.values())


def _sums(number: int, is_money: bool) -> Sql:
    """How many numbers there are in the lists of a column; in units of the last decimal, what
    rounding changes of those with at most 46 decimals; and the longer ones as they are."""
    cells = Sql(f"n{int(number)}")
    if not is_money:
        return Sql(f"sum(len({cells})), NULL, NULL")
    longest = Sql(f"list_filter({cells}, lambda cell: rounded_by(cell) IS NULL)")
    return Sql(
        f"sum(len({cells})), "
        f"sum(list_sum(list_transform({cells}, lambda cell: rounded_by(cell)))), "
        f"flatten(list({longest}) FILTER (len({longest}) > 0))"
    )


def _add(before: Decimal | None, changed: Decimal | None, longest: list[str] | None) -> Decimal:
    with localcontext(prec=_DIGITS):
        total = (before or Decimal(0)) + (changed or Decimal(0)) * _LAST_DECIMAL
        for cell in longest or ():
            total += Decimal(cell).quantize(_LAST_DECIMAL) - Decimal(cell)
        return total
