"""The line items of an example bill: the same rows and cells for the same seed everywhere.

DuckDB makes them from whole numbers only, so neither the machine nor its number of cores changes a
digit. Every cell is text under its CUR v1 header; other formats are projections of these columns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import quoted
from finops_dagster.demo.catalog import TAG_ATTRIBUTES, WORKLOADS
from finops_dagster.demo.cur1_columns import HEADERS
from finops_dagster.demo.cur1_slots import SLOTS, Slot, month_slots
from finops_dagster.demo.row_mix import TICKS
from finops_dagster.demo.version import Version
from finops_dagster.tables.database import DuckDB

CHANGED_EVERY = 400  # a restated month has measured one usage row of so many anew
CHANGED_PER_MILLE = 1050
_PRIME = 2**31 - 1

Columns = dict[str, list[Any]]  # a table to load: one list of values for each column name


@dataclass(frozen=True)
class Bill:
    """The line items of one version, as a query over tables that lie in memory."""

    connection: duckdb.DuckDBPyConnection
    query: str
    parameters: dict[str, object]

    def copy(self, expressions: Sequence[str], rows: range, path: Path, file_format: str) -> None:
        """Write some rows, in order, to a file; `file_format` is what DuckDB's COPY takes.

        Expressions are SQL over the CUR v1 headers. Files may be written side by side.
        """
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"COPY (SELECT {', '.join(expressions)} FROM ({self.query})) "
                f"TO $path ({file_format})",
                {**self.parameters, "path": str(path), "first": rows.start, "end": rows.stop},
            )


@contextmanager
def open_bill(version: Version, seed: int) -> Iterator[Bill]:
    """Plan the line items of a version; they are made anew for every file that they go to."""
    slots = month_slots(version.month, seed, final=version.restated)
    columns = _slot_columns(slots)
    cells = ", ".join(_cell(header, columns) for header in HEADERS)
    before_late = version.rows - version.late_rows
    parameters: dict[str, object] = {
        "before_late": before_late,
        "last": _last_position(slots, before_late),
        "late_slots": len(slots) - SLOTS,
        "salt": int(sha256(f"{seed}/{version.month}".encode()).hexdigest()[:7], 16),
        "changed": CHANGED_PER_MILLE if version.restated else 1000,
        "assembly": f"{seed}/{version.assembly_id}",
    }
    # A file has one thread and joins whose sides are not swapped: that keeps its rows in number
    # order without a sort. Without statistics no Parquet column becomes REQUIRED because a month
    # happens to fill it, so all files of a format have one schema.
    with DuckDB(threads=1).scratch() as connection:
        connection.execute(
            "SET disabled_optimizers = 'join_order,build_side_probe_side,statistics_propagation'"
        )
        connection.execute(_MACROS)
        _load(connection, "slot", columns)
        _load(connection, "workload", _workload_columns())
        yield Bill(connection, f"{_ROWS} SELECT {cells} FROM measured", parameters)


def _last_position(slots: Sequence[Slot], rows: int) -> int:
    """Return the slot of the last row that is not late: never one that a next row would offset."""
    position = (rows - 1) % SLOTS
    if slots[(position + 1) % SLOTS].behind:
        return next(n for n, slot in enumerate(slots) if slot.changes and not slot.edp_percent)
    return position


def _load(connection: duckdb.DuckDBPyConnection, table: str, columns: Columns) -> None:
    """Create a table from lists of equal length; what cursors see must be a table, not a view."""
    connection.register("loaded", pa.table(columns))
    connection.execute(f"CREATE TABLE {table} AS FROM loaded")
    connection.unregister("loaded")


def _slot_columns(slots: Sequence[Slot]) -> Columns:
    """Return the columns of the slot table: a slot's own fields and its cells under the headers.

    A header that no slot fills has no column.
    """
    own = [field.name for field in fields(Slot) if field.name != "cells"]
    filled = {header for slot in slots for header in slot.cells}
    return (
        {"position": list(range(len(slots)))}
        | {name: [getattr(slot, name) for slot in slots] for name in own}
        | {
            header: [slot.cells.get(header) for slot in slots]
            for header in HEADERS
            if header in filled
        }
    )


def _workload_columns() -> Columns:
    """Return the columns of the workload table: account, name, and the tags under their headers."""
    columns: Columns = {
        "number": list(range(len(WORKLOADS))),
        "account": [workload.account for workload in WORKLOADS],
        "name": [workload.name for workload in WORKLOADS],
        "business_unit": [workload.business_unit for workload in WORKLOADS],
    }
    for header, attribute in TAG_ATTRIBUTES.items():
        columns[header] = [getattr(workload, attribute) for workload in WORKLOADS]
    return columns


def _cell(header: str, slot_columns: Columns) -> str:
    """Return the SQL of one column of the bill; a column that nothing fills is all empty."""
    if header in _MEASURED_CELLS:
        value = _MEASURED_CELLS[header]
    elif header in TAG_ATTRIBUTES:
        value = f"CASE WHEN has_tags THEN {quoted(header)} END"
    else:
        value = quoted(header) if header in slot_columns else "NULL::VARCHAR"
    return f"{value} AS {quoted(header)}"


# scatter() is the fifth power modulo a prime p: a permutation of 0..p-1, because 5 and p-1 have no
# common factor. draw() takes independent looking numbers from one scattered one. written() is
# number_text() in SQL. filled() is the map of the entries that have a value.
_MACROS = f"""
CREATE MACRO fourth_power(x) AS ((x * x) % {_PRIME}) * ((x * x) % {_PRIME}) % {_PRIME};
CREATE MACRO scatter(x) AS fourth_power(x % {_PRIME}) * (x % {_PRIME}) % {_PRIME};
CREATE MACRO draw(scattered, multiplier) AS (scattered * multiplier) % {_PRIME};
CREATE MACRO shortened(digits) AS
    left(digits, 1) || '.' || coalesce(nullif(rtrim(substr(digits, 2), '0'), ''), '0')
    || 'E-' || (11 - length(digits));
CREATE MACRO written(number, exponent) AS CASE
    WHEN exponent AND abs(number) BETWEEN 1 AND 9999999
    THEN if(number < 0, '-', '') || shortened(abs(number)::VARCHAR)
    ELSE (number::DECIMAL(19, 0) * 0.0000000001::DECIMAL(10, 10))::VARCHAR
END;
CREATE MACRO share(cost, percent) AS (cost * percent // 100)::BIGINT;
CREATE MACRO moment(t) AS strftime(t, '%Y-%m-%dT%H:%M:%SZ');
CREATE MACRO filled(entries) AS
    map_from_entries(list_filter(entries, lambda entry: entry.value IS NOT NULL));
"""

# A run is the rows in which a slot keeps its resource; they lie in different hours or days.
_ROWS = f"""
WITH numbered AS (
    SELECT i, CASE
        WHEN i < $before_late - 1 THEN i % {SLOTS}
        WHEN i < $before_late THEN $last
        ELSE {SLOTS} + (i - $before_late) % $late_slots
    END AS position
    FROM range($first, $end) AS numbers(i)
), placed AS (
    SELECT
        slot.*,
        i - behind AS source,
        (i - behind) // run_rows AS run,
        scatter((i - behind) // run_rows * 2003 + numbered.position - behind + $salt) AS run_draw,
        scatter((i - behind) * 3 + 1 + $salt) AS row_draw
    FROM numbered LEFT JOIN slot ON slot.position = numbered.position
), drawn AS (
    SELECT
        *,
        draw(run_draw, 16807) + source // {SLOTS} AS step,
        least(most, amount::HUGEINT * growth // 1000 * CASE spread
            WHEN 0 THEN 1000000
            WHEN 1 THEN 200000 + draw(row_draw, 69621) % 1600001
            ELSE 1 + 7 * scale * scale * scale * scale * scale * scale // 1000000000000
        END // 1000000)::BIGINT AS quantity,
        CASE WHEN changes AND draw(row_draw, 40014) % {CHANGED_EVERY} = 0
            THEN $changed ELSE 1000
        END AS changed
    FROM (SELECT *, 1 + draw(row_draw, 39373) % 1000 AS scale FROM placed)
), dated AS (
    SELECT
        *,
        origin + to_hours(step % steps * step_hours) AS usage_start,
        least(most, greatest(1, quantity::HUGEINT * changed // 1000))::BIGINT AS exact_quantity
    FROM drawn
), counted AS (
    SELECT
        *,
        usage_start + to_hours(step_hours) AS usage_end,
        CASE WHEN whole
            THEN (exact_quantity // {TICKS} + 1) * {TICKS} ELSE exact_quantity
        END AS charged_quantity
    FROM dated
), measured AS (
    SELECT
        *,
        CASE WHEN lump THEN {TICKS} ELSE charged_quantity END AS usage_quantity,
        ((charged_quantity::HUGEINT * rate + {TICKS // 2}) // {TICKS})::BIGINT AS cost,
        draw(run_draw, 62089911) AS serial,
        tagged AND draw(run_draw, 62089911) % 8 > 0 AS has_tags
    FROM counted LEFT JOIN workload ON number = draw(run_draw, 48271) % {len(WORKLOADS)}
)
"""

# Cells that differ from row to row of a slot. A line item id is 39 bytes in base 64, made to look
# like AWS's base 32.
_MEASURED_CELLS = {
    "identity/LineItemId": (
        "translate(lower(to_base64(unhex("
        "sha256(concat_ws('/', $assembly, position, run))"
        " || left(md5(concat_ws('/', $assembly, position, run)), 14)"
        "))), '+/0189', 'uvwxyz')"
    ),
    "identity/TimeInterval": "moment(usage_start) || '/' || moment(usage_end)",
    "lineItem/UsageAccountId": "account",
    "lineItem/UsageStartDate": "moment(usage_start)",
    "lineItem/UsageEndDate": "moment(usage_end)",
    "lineItem/AvailabilityZone": "zone || substr('abc', 1 + serial % 3, 1)",
    "lineItem/ResourceId": (
        "replace(replace(replace(resource, '{account}', account),"
        " '{name}', name || '-' || serial % 40),"
        " '{hex}', '0' || left(md5(concat_ws('/', position, run_draw)), 16))"
    ),
    "lineItem/UsageAmount": "written(usage_quantity, exponent)",
    "lineItem/NormalizedUsageAmount": "written(usage_quantity * normalization, exponent)",
    "lineItem/UnblendedCost": "written(share(cost, cost_percent), exponent)",
    "lineItem/BlendedCost": "written(share(cost, blended_percent), exponent)",
    "pricing/publicOnDemandCost": "written(share(cost, public_percent), exponent)",
    "reservation/EffectiveCost": "written(share(cost, reserved_percent), exponent)",
    "reservation/RecurringFeeForUsage": "written(share(cost, reserved_percent) // 2, exponent)",
    "reservation/AmortizedUpfrontCostForUsage": (
        "written(share(cost, reserved_percent) - share(cost, reserved_percent) // 2, exponent)"
    ),
    "savingsPlan/SavingsPlanEffectiveCost": "written(share(cost, plan_percent), exponent)",
    "discount/EdpDiscount": "written(share(cost, edp_percent), exponent)",
    "discount/TotalDiscount": "written(share(cost, edp_percent), exponent)",
    "resourceTags/user:Name": "CASE WHEN has_tags THEN name || '-' || serial % 40 END",
    "costCategory/Organization": "business_unit",
}
