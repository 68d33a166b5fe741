"""How many cells of a month have more than 18 decimals, and by how much rounding changes them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import RoundedColumn
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping

_LAST_DECIMAL = Decimal("1e-18")
# No number in a cell is so long, nor is a sum of them: nothing of the sums is rounded.
_DIGITS = 1_000_000


def count_cells_to_round(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[BillFiles],
    mappings: Sequence[ColumnMapping],
) -> tuple[RoundedColumn, ...]:
    """Count in each column of numbers those of more than 18 decimals that are rounded, and of money
    sum what that changes; columns without such numbers are left out."""
    rounded: dict[str, RoundedColumn] = {}
    for group in files:
        present = [
            (mapping, f"n{number}")
            for number, mapping in enumerate(mappings)
            if mapping.table_type.is_money
            and mapping.header in group
            and (mapping.is_rounded or group.has_doubles(mapping.header))
        ]
        if not present:
            continue
        cells = ", ".join(
            f"{group.numbers_to_round(t.header, t.table_type)} AS {n}" for t, n in present
        )
        sums = ", ".join(_sums(Sql(n), t.is_money) for t, n in present)
        row = connection.execute(
            f"SELECT {sums} FROM (SELECT {cells} FROM {group.scan()})"
        ).fetchall()[0]
        for number, (mapping, _) in enumerate(present):
            count, changed, longest = row[3 * number : 3 * number + 3]
            if count:
                before = rounded.get(mapping.name, RoundedColumn(mapping.name, 0))
                amount = _add(before.amount, changed, longest) if mapping.is_money else None
                rounded[mapping.name] = RoundedColumn(mapping.name, before.cells + count, amount)
    return tuple(rounded.values())


def _sums(cells: Sql, is_money: bool) -> Sql:
    """How many numbers there are in the lists of a column; in units of the last decimal, what
    rounding changes of those with at most 46 decimals; and the longer ones as they are."""
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
