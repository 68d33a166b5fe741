"""A loaded month's report: its costs, and whether it is final."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import table_columns

# A year, and the same month of the year before.
MONTHS_SHOWN = 13


@dataclass(frozen=True)
class MonthReport:
    """The report of a loaded month.

    `services` and `currencies` have the headline cost of each, the largest first, and `(none)` for
    rows without one. They are empty if the table has no such column. Services without a cost have
    0; currencies without a cost are left out.
    """

    load: Load
    superseded_load: Load | None
    """The month's newest superseded load; None if it has none."""
    previous_month_load: Load | None
    """The load of the calendar month before; None if that is not loaded."""
    column_types: dict[str, str]
    """DuckDB's type of each column of the table."""
    cost_column: str
    """The name of the headline cost's column."""
    services: list[tuple[str, Decimal]]
    currencies: list[tuple[str, Decimal]]
    month_costs: list[tuple[BillingMonth, dict[str, Decimal]]]
    """The headline costs of the export's last 13 months up to this one, oldest first."""
    is_final: bool | None
    """Whether the month is final; None if the table lacks the columns that show it."""


def month_report(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> MonthReport:
    """Return the report of the month in the billing table.

    `load` is the table's load of the month, with the totals that were measured in the table. The
    other months come from the ledger.
    """
    column_types = table_columns(connection, load.table)
    return MonthReport(
        load,
        ledger.newest_load(connection, load.export, load.month, "superseded"),
        ledger.newest_load(connection, load.export, load.month.previous),
        column_types,
        bill_format.cost,
        _cost_by_service(connection, load, bill_format)
        if bill_format.service in column_types
        else [],
        labelled_costs(load) if bill_format.currency in column_types else [],
        ledger.month_costs(connection, load.export, load.month, MONTHS_SHOWN),
        _is_final(connection, load, bill_format.finality_sql(column_types)),
    )


def labelled_costs(load: Load) -> list[tuple[str, Decimal]]:
    """Return the headline cost of a load in each currency, the largest first.

    Rows without a currency are `(none)`. Empty if the load's record has no costs by currency.
    """
    costs = (load.totals.costs or {}).items()
    named = ((currency or "(none)", cost) for currency, cost in costs)
    return sorted(named, key=lambda pair: (-pair[1], pair[0]))


def _cost_by_service(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> list[tuple[str, Decimal]]:
    service, cost = quoted(bill_format.service), quoted(bill_format.cost)
    return connection.execute(
        f"SELECT coalesce({service}, '(none)'), coalesce(sum({cost}), 0) "
        f"FROM {quoted(load.table)} WHERE billing_month = ? GROUP BY ALL ORDER BY 2 DESC, 1",
        [load.month.first_day],
    ).fetchall()


def _is_final(
    connection: duckdb.DuckDBPyConnection, load: Load, finality_sql: Sql | None
) -> bool | None:
    if finality_sql is None:
        return None
    ((is_final,),) = connection.execute(
        f"SELECT {finality_sql} FROM {quoted(load.table)} WHERE billing_month = ?",
        [load.month.first_day],
    ).fetchall()
    return None if is_final is None else bool(is_final)
