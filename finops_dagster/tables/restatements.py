"""Restatements in the ledger: what a load replaced, in the transaction that replaced it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import (
    MAX_CHANGES,
    MAX_RESTATEMENTS,
    OTHER,
    CostChange,
    Restatement,
    sorted_changes,
)
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger

_IS_MONTH = Sql("export = ? AND billing_month = ?")
# The largest changes are found by rounded differences: an exact one may not fit into its type.
_CHANGES = """
WITH before_and_after AS (
    SELECT currency, service, account, cost AS cost_before, row_count AS rows_before
    FROM finops_replaced_costs
    UNION ALL BY NAME
    SELECT currency, service, account, cost AS cost_after, row_count AS rows_after
    FROM ({costs})
), summed AS (
    SELECT currency, service, account,
        coalesce(sum(cost_before), 0) AS old_cost, coalesce(sum(cost_after), 0) AS new_cost,
        coalesce(sum(rows_before), 0) AS old_rows, coalesce(sum(rows_after), 0) AS new_rows,
        old_cost <> new_cost OR old_rows <> new_rows AS is_changed
    FROM before_and_after GROUP BY currency, service, account
), numbered AS (
    SELECT *, is_changed AND row_number() OVER (
        ORDER BY is_changed DESC, abs(new_cost::DOUBLE - old_cost::DOUBLE) DESC,
            abs(new_rows - old_rows) DESC, currency, service, account
    ) <= $max_changes AS is_listed
    FROM summed
)
SELECT currency, if(is_listed, service, $other), if(is_listed, account, $other),
    sum(old_cost), sum(new_cost), sum(old_rows)::BIGINT, sum(new_rows)::BIGINT
FROM numbered GROUP BY 1, 2, 3, is_listed
"""


def copy_replaced_costs(
    connection: duckdb.DuckDBPyConnection, rows: Sql, bill_format: Format
) -> None:
    """Copy the costs of rows by currency, service and account, before a load replaces the rows.

    `rows` is what follows FROM to read the rows. The costs are in a temporary table of the
    connection, for `record_restatement`; a second call replaces them.
    """
    costs = _costs(connection, rows, bill_format)
    # A temporary table hides a table of the same name, which hardly any export has.
    connection.execute(f"CREATE OR REPLACE TEMP TABLE finops_replaced_costs AS {costs}")


def record_restatement(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    rows: Sql,
    replaced_id: str,
    bill_format: Format,
) -> Restatement | None:
    """Record what a load changed, and return it; the ledger keeps the newest 20 of the month.

    Call it in the load's transaction, after `copy_replaced_costs` on this connection; `replaced_id`
    is the version id of its rows. `rows` is what follows FROM to read the load's rows. None, and
    nothing is recorded, if the same version was loaded again without any change of a cost or a
    number of rows.
    """
    costs = _costs(connection, rows, bill_format)
    change_rows = connection.execute(
        _CHANGES.format(costs=costs), {"max_changes": MAX_CHANGES, "other": OTHER}
    ).fetchall()
    changes = sorted_changes(CostChange(*row) for row in change_rows)
    if load.manifest_id == replaced_id and all(change.is_sum for change in changes):
        return None
    number = newest_restatement_number(connection, load.export, load.month) + 1
    time = datetime.now(UTC).replace(tzinfo=None)
    restatement = Restatement(number, load.manifest_id, replaced_id, time, load.run_id, changes)
    _write(connection, load.export, load.month, [restatement])
    return restatement


def _costs(connection: duckdb.DuckDBPyConnection, rows: Sql, bill_format: Format) -> Sql:
    """Return a SELECT of the costs of rows by currency, service and account."""
    described = connection.execute(f"DESCRIBE FROM {rows}").fetchall()
    present = {name for name, *_ in described}

    def text(column: str) -> Sql:
        return Sql(f"nullif({quoted(column)}::VARCHAR, '')") if column in present else Sql("NULL")

    cost = Sql(quoted(bill_format.cost) if bill_format.cost in present else "NULL::DECIMAL(38,18)")
    return Sql(
        f"SELECT {text(bill_format.currency)} AS currency, {text(bill_format.service)} AS service, "
        f"{text(bill_format.account)} AS account, sum({cost}) AS cost, count(*) AS row_count "
        f"FROM {rows} GROUP BY 1, 2, 3"
    )


def restatements(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> list[Restatement]:
    """Return the restatements of a month in the ledger, the newest first."""
    return _restatements_by_month(connection, export, month).get(month, [])


def _restatements_by_month(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth | None = None
) -> dict[BillingMonth, list[Restatement]]:
    """Return the restatements of an export by month, or of one month.

    The oldest month is first, and in each month the newest restatement. Months without any are left
    out.
    """
    rows = connection.execute(
        "SELECT billing_month, restatement_number, manifest_id, replaced_id, restated_at, run_id, "
        "currency, service, account, cost_before, cost_after, rows_before, rows_after "
        "FROM finops_state.restatements "
        "WHERE export = ? AND billing_month = coalesce(?, billing_month) "
        "ORDER BY billing_month, restatement_number DESC",
        [export, month and month.first_day],
    ).fetchall()
    by_month: dict[BillingMonth, list[Restatement]] = {}
    for key, group in groupby(rows, key=lambda row: row[:6]):
        first_day, number, manifest_id, replaced_id, restated_at, run_id = key
        changes = sorted_changes(CostChange(*row[6:]) for row in group)
        by_month.setdefault(BillingMonth.of(first_day), []).append(
            Restatement(number, manifest_id, replaced_id, restated_at, run_id, changes)
        )
    return by_month


def newest_restatement_number(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> int:
    """Return the number of the month's newest restatement in the ledger; 0 without any."""
    ((number,),) = connection.execute(
        f"SELECT max(restatement_number) FROM finops_state.restatements WHERE {_IS_MONTH}",
        [export, month.first_day],
    ).fetchall()
    return number or 0


def overwrite_restatements(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    restored: Iterable[Restatement],
) -> int:
    """Record restatements, also over others with their numbers; return how many were recorded.

    Those that the ledger has with the same fields are not recorded again, and do not count. Unlike
    `add_missing_restatements`, this replaces one with the same number and other fields. The ledger
    keeps the newest 20 of the month.
    """
    recorded = restatements(connection, export, month)
    missing = [restatement for restatement in restored if restatement not in recorded]
    _write(connection, export, month, missing)
    return len(missing)


def add_missing_restatements(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    added: Iterable[Restatement],
) -> int:
    """Record the restatements whose numbers the ledger lacks, and return how many were recorded.

    One in the ledger with the same number stays as it is, unlike in `overwrite_restatements`. The
    ledger keeps the newest 20 of the month.
    """
    recorded = connection.execute(
        f"SELECT DISTINCT restatement_number FROM finops_state.restatements WHERE {_IS_MONTH}",
        [export, month.first_day],
    ).fetchall()
    missing = [restatement for restatement in added if (restatement.number,) not in recorded]
    _write(connection, export, month, missing)
    return len(missing)


def _write(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    written: Sequence[Restatement],
) -> None:
    """Write restatements, replace those with their numbers, and keep the newest of the month."""
    key = {"export": export, "billing_month": month.first_day}
    connection.execute(
        f"DELETE FROM finops_state.restatements WHERE {_IS_MONTH} "
        "AND list_contains(?, restatement_number)",
        [*key.values(), [restatement.number for restatement in written]],
    )
    if rows := [{**key, **row} for restatement in written for row in _rows(restatement)]:
        ledger.insert_rows(connection, "restatements", rows)
    # The footer of the month's Parquet file has as many.
    connection.execute(
        f"DELETE FROM finops_state.restatements WHERE {_IS_MONTH} AND restatement_number <= ?",
        [*key.values(), newest_restatement_number(connection, export, month) - MAX_RESTATEMENTS],
    )


def _rows(restatement: Restatement) -> list[dict[str, Any]]:
    """Return the rows of the ledger for a restatement, one for each change."""
    fields = {name: value for name, value in vars(restatement).items() if name != "changes"}
    fields["restatement_number"] = fields.pop("number")
    return [
        {
            **fields,
            **vars(change),
            "cost_before": decimal_text(change.cost_before),
            "cost_after": decimal_text(change.cost_after),
        }
        for change in restatement.changes
    ]
