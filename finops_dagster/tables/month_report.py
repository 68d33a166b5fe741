"""What people ask of a month: what it cost, what a restatement changed, whether it is final."""

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
    """The month as the table holds it. Costs are by service and by currency, the largest first, and
    are those of the column `cost`; a service without any cost costs 0, a currency without any is
    left out. `is_final` is None where the export does not say."""

    load: Load
    previous_version: Load | None
    previous_month: Load | None
    columns: dict[str, str]
    cost: str
    services: list[tuple[str, Decimal]]
    currencies: list[tuple[str, Decimal]]
    is_final: bool | None


@dataclass(frozen=True)
class Restatement:
    """A version of a month against the version that it replaced."""

    previous: MonthReport
    current: MonthReport

    @property
    def rows(self) -> int:
        """How many rows the month has gained."""
        return self.current.load.totals.rows - self.previous.load.totals.rows

    @property
    def cost(self) -> Decimal:
        """How much cost the month has gained."""
        return self.current.load.totals.cost - self.previous.load.totals.cost

    def cost_changes(self) -> list[tuple[str, Decimal, Decimal]]:
        """The services whose cost moved, the largest move first: name, before, now."""
        before, now, zero = dict(self.previous.services), dict(self.current.services), Decimal(0)
        costs = ((name, before.get(name, zero), now.get(name, zero)) for name in before | now)
        moved = [(name, was, is_now) for name, was, is_now in costs if was != is_now]
        return sorted(moved, key=lambda move: (-abs(move[2] - move[1]), move[0]))


def month_report(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> MonthReport:
    """Look at the month that the table holds, whose totals were measured."""
    present = table_columns(connection, load.table)
    costs = (load.totals.costs or {}) if bill_format.currency in present else {}
    return MonthReport(
        load,
        ledger.newest_load(connection, load.export, load.month, "superseded"),
        ledger.newest_load(connection, load.export, load.month.previous),
        present,
        bill_format.cost,
        _cost_by_service(connection, load, bill_format) if bill_format.service in present else [],
        sorted(
            ((currency or "(none)", cost) for currency, cost in costs.items()),
            key=lambda pair: (-pair[1], pair[0]),
        ),
        _is_final(connection, load, bill_format.is_final(present)),
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


def _is_final(connection: duckdb.DuckDBPyConnection, load: Load, final: Sql | None) -> bool | None:
    if final is None:
        return None
    ((is_final,),) = connection.execute(
        f"SELECT {final} FROM {quoted(load.table)} WHERE billing_month = ?", [load.month.first_day]
    ).fetchall()
    return bool(is_final)
