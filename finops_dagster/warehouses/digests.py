"""The digests of a month's columns in a warehouse, by which it is compared with the lake's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finops_dagster.billing.columns import Sql
from finops_dagster.tables.digest import (
    BETWEEN_KEY_AND_VALUE,
    MAPS,
    ColumnDigest,
    DigestKind,
    MonthDigest,
    compared,
    digests_of_row,
    groups_of,
    value_type,
)
from finops_dagster.warehouses.base import MonthFile, exact

if TYPE_CHECKING:
    from finops_dagster.warehouses.dialect import Dialect


def digest_of(dialect: Dialect, file: MonthFile) -> MonthDigest:
    """Return the digests of the dialect's kind, MD5 or SUMS: by the same MD5 as in DuckDB. A map
    takes a query of its own, in which its entries are rows. Raises BillError."""
    kind = dialect.digest_kind
    types = compared(file.types, kind)
    held = {name.lower(): own for name, own in dialect.columns(file.table).items()}
    cells = {name: dialect.cell(name, of_type, held) for name, of_type in types.items()}
    table, month = dialect.qualified(file.table), dialect.of_month(file)
    found: dict[str, ColumnDigest] = {}
    for names in groups_of([n for n in types if types[n] not in MAPS], dialect.columns_at_once):
        asked = ", ".join(
            f"COUNT({cells[n]}), {dialect.sum(_number(dialect, cells[n], types[n], kind))}"
            for n in names
        )
        (row,) = dialect.query(f"SELECT {asked} FROM {table} WHERE {month}")
        found |= digests_of_row(names, [exact(number) for number in row])
    for name in (n for n in types if types[n] in MAPS):
        ((values,),) = dialect.query(f"SELECT COUNT({cells[name]}) FROM {table} WHERE {month}")
        value = dialect.digest_text(Sql("entry.value"), value_type(types[name]))
        text = Sql(f"entry.key || CHR({BETWEEN_KEY_AND_VALUE}) || {value}")
        ((total,),) = dialect.query(
            f"SELECT {dialect.sum(dialect.digest_number(text))} "
            f"FROM {table}, {dialect.entries(cells[name])} WHERE {month}"
        )
        found |= digests_of_row([name], [values, exact(total)])
    return MonthDigest(kind, found)


def _number(dialect: Dialect, cell: Sql, of_type: str, kind: DigestKind) -> Sql:
    if kind == DigestKind.SUMS:
        return cell
    return dialect.digest_number(dialect.digest_text(cell, of_type))
