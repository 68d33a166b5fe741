"""The ledger of a warehouse: `{table}_loads`, with one row for each load."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from finops_dagster.billing.columns import SqlType
from finops_dagster.warehouses.base_dialect import BaseDialect
from finops_dagster.warehouses.column_types import COUNT
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable, as_utc

LEDGER_COLUMNS = {
    "billing_period": SqlType.TEXT,
    "load_timestamp": SqlType.TIME,
    "row_count": COUNT,
    "state": SqlType.TEXT,
    "error_message": SqlType.TEXT,
    "manifest_id": SqlType.TEXT,
    "job_id": SqlType.TEXT,
}
"""The data types of a ledger's columns; all but `error_message` are NOT NULL."""


def ledger_name(table: str) -> str:
    """Return the name of the table's ledger."""
    return f"{table}_loads"


def recorded_loads(dialect: BaseDialect, table: str) -> list[tuple[Any, ...]]:
    """Return (month, version id, row count, time) of every load in the state `loaded`.

    The values are as the database returns them, in any order; empty if the table has no ledger.
    """
    if not dialect.stored_columns(ledger_name(table)):
        return []
    return dialect.query(
        "SELECT billing_period, manifest_id, row_count, load_timestamp "
        f"FROM {dialect.table_sql(ledger_name(table))} WHERE state = 'loaded'"
    )


def record_load(
    dialect: BaseDialect, file: MonthFile, job_id: str, state: str, error_message: str | None = None
) -> str:
    """Insert the ledger's row of the load `job_id`, or update its state, message and time.

    Returns the state that the row has then. `state` is `loading`, `loaded` or `failed`. A row in
    the state `loaded` or `failed` is not changed. The time is now, or just after the newest time of
    the month's rows if that is later, so that this load is the newest. The ledger must exist:
    `prepare_tables` of the dialect creates it. Raises WarehouseUnavailable if `state` is `loaded`,
    but another run has recorded this load as `failed`.
    """
    ledger, at = dialect.table_sql(ledger_name(file.table)), dialect.placeholder
    recorded_state, newest = _recorded_state(dialect, file, job_id)
    timestamp = datetime.now(UTC)
    if newest is not None:
        # The newest load is the month's version, also after a clock that was ahead.
        timestamp = max(timestamp, as_utc(newest) + timedelta(microseconds=1))
    if recorded_state == "loading":
        # Another run may end the load at the same time: whoever is first decides the state.
        dialect.query(
            f"UPDATE {ledger} SET state = {at(1)}, error_message = {at(2)}, "
            f"load_timestamp = {dialect.timestamp_literal(timestamp)} "
            f"WHERE job_id = {at(3)} AND state = 'loading'",
            *(state, error_message, job_id),
        )
        recorded_state, _ = _recorded_state(dialect, file, job_id)
    elif recorded_state is None:
        dialect.query(
            f"INSERT INTO {ledger} ({', '.join(LEDGER_COLUMNS)}) VALUES ({at(1)}, "
            f"{dialect.timestamp_literal(timestamp)}, {at(2)}, {at(3)}, {at(4)}, {at(5)}, {at(6)})",
            *(str(file.month), file.footer.totals.rows, state, error_message),
            *(file.footer.manifest_id, job_id),
        )
        recorded_state = state
    # Any other state stays: the row of a load whose commit succeeded and whose answer was lost.
    if state == "loaded" and recorded_state != "loaded":
        raise WarehouseUnavailable(
            f"{dialect.full_name(file.table)}: another run is loading {file.month}"
        )
    return str(recorded_state)


def _recorded_state(dialect: BaseDialect, file: MonthFile, job_id: str) -> tuple[Any, Any]:
    """Return the state of a load, and the newest time of the month's loads; None without a row."""
    at = dialect.placeholder
    (row,) = dialect.query(
        f"SELECT MAX(CASE WHEN job_id = {at(1)} THEN state END), MAX(load_timestamp) "
        f"FROM {dialect.table_sql(ledger_name(file.table))} WHERE billing_period = {at(2)}",
        *(job_id, str(file.month)),
    )
    return row[0], row[1]
