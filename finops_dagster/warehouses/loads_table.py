"""The ledger of a warehouse: the table of loads beside each table of bills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from finops_dagster.billing.columns import SqlType
from finops_dagster.warehouses.column_types import COUNT
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable, as_utc
from finops_dagster.warehouses.session import Session

LEDGER_COLUMNS = {
    "billing_period": SqlType.TEXT,
    "load_timestamp": SqlType.TIME,
    "row_count": COUNT,
    "state": SqlType.TEXT,
    "error_message": SqlType.TEXT,
    "manifest_id": SqlType.TEXT,
    "job_id": SqlType.TEXT,
}
"""The columns of every ledger; all but `error_message` always have a value."""


def ledger_name(table: str) -> str:
    """Return the name of the table's ledger."""
    return f"{table}_loads"


def recorded_loads(session: Session, table: str) -> list[tuple[Any, ...]]:
    """Return month, version, rows and time of every load that the ledger has as loaded."""
    if not session.native_types(ledger_name(table)):
        return []
    return session.query(
        "SELECT billing_period, manifest_id, row_count, load_timestamp "
        f"FROM {session.qualified(ledger_name(table))} WHERE state = 'loaded'"
    )


def record_load(
    session: Session, file: MonthFile, job_id: str, state: str, error_message: str | None = None
) -> None:
    """Write into the ledger how a load stands: now, or just after the month's newest, which a
    clock that was wrong may have put into the future. One that ended stays as it is: the answer
    to its commit may have been lost. Raises WarehouseUnavailable where another run ended it."""
    ledger, at = session.qualified(ledger_name(file.table)), session.placeholder
    ((known, newest),) = session.query(
        f"SELECT MAX(CASE WHEN job_id = {at(1)} THEN state END), MAX(load_timestamp) "
        f"FROM {ledger} WHERE billing_period = {at(2)}",
        *(job_id, str(file.month)),
    )
    if known == "failed" and state == "loaded":
        raise WarehouseUnavailable(
            f"{session.full_name(file.table)}: another run is loading {file.month}"
        )
    now = datetime.now(UTC)
    if newest is not None:
        now = max(now, as_utc(newest) + timedelta(microseconds=1))
    if known == "loading":
        session.query(
            f"UPDATE {ledger} SET state = {at(1)}, error_message = {at(2)}, "
            f"load_timestamp = {session.timestamp_literal(now)} WHERE job_id = {at(3)}",
            *(state, error_message, job_id),
        )
    elif known is None:
        session.query(
            f"INSERT INTO {ledger} ({', '.join(LEDGER_COLUMNS)}) VALUES ({at(1)}, "
            f"{session.timestamp_literal(now)}, {at(2)}, {at(3)}, {at(4)}, {at(5)}, {at(6)})",
            *(str(file.month), file.footer.totals.rows, state, error_message),
            *(file.footer.manifest_id, job_id),
        )
