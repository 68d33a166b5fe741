"""Counts the numbers of a month that are rounded to 18 decimals, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import RoundedColumn
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping

_LAST_DECIMAL = Decimal("1e-18")
# More digits than any number of a cell or their sum has, so that Python rounds nothing.
_DIGITS = 1_000_000


def rounded_columns(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[BillFiles],
    mappings: Sequence[ColumnMapping],
) -> tuple[RoundedColumn, ...]:
    """Return the columns with numbers that a load rounds to 18 decimals, and how many it rounds.

    Each number in a map counts. The `amount` of a money column is the exact sum of the changes by
    rounding; None for quantities. Nothing is changed. Only files with doubles, or with columns
    whose mapping `is_rounded`, are scanned. The connection needs the macros of `prepare_casts`.
    """
    rounded: dict[str, RoundedColumn] = {}
    for group in files:
        present = [
            (mapping, f"n{number}")
            for number, mapping in enumerate(mappings)
            if mapping.table_type.is_numeric
            and mapping.header in group
            and (mapping.is_rounded or group.has_doubles(mapping.header))
        ]
        if not present:
            continue
        cells = ", ".join(
            f"{group.numbers_to_round_sql(m.header, m.table_type)} AS {n}" for m, n in present
        )
        sums = ", ".join(_sums(Sql(n), m.is_money) for m, n in present)
        row = connection.execute(
            f"SELECT {sums} FROM (SELECT {cells} FROM {group.rows_sql()})"
        ).fetchall()[0]
        for number, (mapping, _) in enumerate(present):
            count, change, longest = row[3 * number : 3 * number + 3]
            if count:
                column = rounded.get(mapping.name, RoundedColumn(mapping.name, 0))
                amount = _add(column.amount, change, longest) if mapping.is_money else None
                rounded[mapping.name] = RoundedColumn(mapping.name, column.cells + count, amount)
    return tuple(rounded.values())


def _sums(cells: Sql, is_money: bool) -> Sql:
    """Return the SQL for three values of a column whose cells are lists of numbers.

    They are the count of the numbers; the sum of the changes by rounding of those with at most 46
    decimals, in units of 1e-18; and the list of the longer numbers, which the macro
    `rounding_change` cannot take. The last two are NULL unless `is_money`.
    """
    if not is_money:
        return Sql(f"sum(len({cells})), NULL, NULL")
    longest = Sql(f"list_filter({cells}, lambda cell: rounding_change(cell) IS NULL)")
    return Sql(
        f"sum(len({cells})), "
        f"sum(list_sum(list_transform({cells}, lambda cell: rounding_change(cell)))), "
        f"flatten(list({longest}) FILTER (len({longest}) > 0))"
    )


def _add(total: Decimal | None, change: Decimal | None, longest: list[str] | None) -> Decimal:
    with localcontext(prec=_DIGITS):
        total = (total or Decimal(0)) + (change or Decimal(0)) * _LAST_DECIMAL
        for cell in longest or ():
            total += Decimal(cell).quantize(_LAST_DECIMAL) - Decimal(cell)
        return total
