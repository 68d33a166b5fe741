"""`finops focus compare`: compare the charges of two exports of one month."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import duckdb

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, count_text, first_line, reprocess_advice
from finops_dagster.billing.money import decimal_text, exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Headings, Row
from finops_dagster.focus.comparison import CostGroup, compare_charges
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import parquet_relation
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB


def compare_exports(
    settings: Settings, exports: tuple[str, str], month: BillingMonth
) -> Sequence[CostGroup]:
    """Return the costs of two exports in a month by group, the largest differences first.

    A group is an account, service, category and currency, with rows and costs in each export;
    groups that do not differ are among them. Raises BillError if there is no such export, or if its
    charges of the month are missing or cannot be read, and if memory does not suffice.
    """
    first, second = (parquet_relation(_path(settings, export, month)) for export in exports)
    with DuckDB.with_limits(settings.database.duckdb).open_in_memory() as connection:
        try:
            return compare_charges(connection, first, second)
        except duckdb.Error as error:
            raise BillError(
                memory_or_disk_problem(error)
                or f"the charges of {' and '.join(exports)} of {month} cannot be compared: "
                f"{first_line(error)}; {reprocess_advice(exports[0], month)}, and then do the "
                f"same for {exports[1]}"
            ) from error


def comparison_headings(exports: tuple[str, str]) -> Headings:
    """Return the headings for the rows of `group_row`; those of the costs name the export."""
    return {
        "account": "account",
        "service": "service",
        "category": "category",
        "currency": "currency",
        **{
            f"{what} {export}": f"{what}_{side}"
            for what in ("billed", "effective")
            for side, export in enumerate(exports, 1)
        },
    }


def group_row(group: CostGroup) -> Row:
    """Return a group as a row; its keys `rows`, `billed` and `effective` end in `_1` and `_2`."""
    amounts = {"billed": group.billed, "effective": group.effective}
    return {
        "account": group.account,
        "service": group.service,
        "category": group.category,
        "currency": group.currency,
        **{f"rows_{side}": rows for side, rows in enumerate(group.rows, 1)},
        **{
            f"{what}_{side}": amount
            for what, pair in amounts.items()
            for side, amount in enumerate(pair, 1)
        },
    }


def summary_lines(exports: tuple[str, str], groups: Sequence[CostGroup]) -> Iterator[str]:
    """Yield a line with the number of groups that differ, and one for each currency.

    The line of a currency has the billed and the effective cost of both exports. `groups` must be
    all that `compare_exports` returns, also those that do not differ.
    """
    differing = sum(group.differs for group in groups)
    yield (
        f"{differing} of {count_text(len(groups), 'group')} of account, service and category differ"
    )
    for currency in sorted({group.currency or "" for group in groups}):
        of_currency = [group for group in groups if (group.currency or "") == currency]
        sums = ", ".join(
            f"{export}: billed {_sum(g.billed[side] for g in of_currency)}, "
            f"effective {_sum(g.effective[side] for g in of_currency)}"
            for side, export in enumerate(exports)
        )
        yield f"{currency}: {sums}"


def _sum(amounts: Iterable[Decimal]) -> str:
    return decimal_text(exact_sum(amounts))


def _path(settings: Settings, export: str, month: BillingMonth) -> Path:
    """Return the file of charges. Raises BillError if there is no such export, or no file."""
    Selection(None, export).exports(settings)
    file = focus_lake(settings.storage.open_lake()).file(export, month)
    if not file.exists():
        raise BillError(
            f"{export} has no charges of {month} ({file.location}); "
            f"{reprocess_advice(export, month)}; an export of Azure's amortized costs, or of a "
            "format without a mapping to FOCUS, never has charges of its own"
        )
    return file.local_path()
