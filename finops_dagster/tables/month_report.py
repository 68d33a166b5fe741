"""A loaded month's report: its costs, its finality, and what a restatement changed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.load import table_columns


@dataclass(frozen=True)
class MonthReport:
    """A month of the billing table.

    Costs are by service and by currency, the largest first. A service without any cost costs 0; a
    currency without any is left out.
    """

    load: Load
    previous_version: Load | None
    previous_month: Load | None
    columns: dict[str, str]
    """The types by column name."""
    cost: str
    """The name of the headline cost's column."""
    services: list[tuple[str, Decimal]]
    currencies: list[tuple[str, Decimal]]
    is_final: bool | None
    """None where the vendor does not say."""


@dataclass(frozen=True)
class Restatement:
    """A version of a month and the version that it replaced."""

    previous: MonthReport
    current: MonthReport

    @property
    def rows(self) -> int:
        """The number of rows that the month gained."""
        return self.current.load.totals.rows - self.previous.load.totals.rows

    @property
    def cost(self) -> Decimal:
        """The headline cost that the month gained."""
        return self.current.load.totals.cost - self.previous.load.totals.cost

    def cost_changes(self) -> list[tuple[str, Decimal, Decimal]]:
        """Return service, previous and current cost where they differ, the largest change first."""
        previous, current = dict(self.previous.services), dict(self.current.services)
        zero = Decimal(0)
        costs = [
            (name, previous.get(name, zero), current.get(name, zero)) for name in previous | current
        ]
        changed = [(name, old, new) for name, old, new in costs if old != new]
        return sorted(changed, key=lambda change: (-abs(change[2] - change[1]), change[0]))


def month_report(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> MonthReport:
    """Return the report of a month in the billing table, whose totals were measured."""
    columns = table_columns(connection, load.table)
    costs = (load.totals.costs or {}) if bill_format.currency in columns else {}
    return MonthReport(
        load,
        ledger.newest_load(connection, load.export, load.month, "superseded"),
        ledger.newest_load(connection, load.export, load.month.previous),
        columns,
        bill_format.cost,
        _cost_by_service(connection, load, bill_format) if bill_format.service in columns else [],
        sorted(
            ((currency or "(none)", cost) for currency, cost in costs.items()),
            key=lambda pair: (-pair[1], pair[0]),
        ),
        _is_final(connection, load, bill_format.finality_sql(columns)),
    )


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
    connection: duckdb.DuckDBPyConnection, load: Load, condition: Sql | None
) -> bool | None:
    if condition is None:
        return None
    ((is_final,),) = connection.execute(
        f"SELECT {condition} FROM {quoted(load.table)} WHERE billing_month = ?",
        [load.month.first_day],
    ).fetchall()
    return bool(is_final)
