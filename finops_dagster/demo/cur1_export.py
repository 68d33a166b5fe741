"""Write example AWS CUR v1 exports: the same files, keys and cells for the same seed everywhere.

The rows are made by DuckDB from whole numbers only, so neither the machine nor its number of
cores changes a digit. Layout and cells follow AWS's "create new version" mode for csv and gzip:
https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from finops_dagster.billing.columns import quoted
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.catalog import PAYER_ACCOUNT, TAG_ATTRIBUTES, WORKLOADS
from finops_dagster.demo.cur1_columns import choose_headers, manifest_type
from finops_dagster.demo.cur1_slots import SLOTS, Slot, month_slots
from finops_dagster.demo.row_mix import TICKS

BUCKET = "example-company-billing"
LATE_EVERY = 500  # a restated month ends in one late refund or credit for so many rows
CHANGED_EVERY = 400  # a restated month has measured one usage row of so many anew
CHANGED_PER_MILLE = 1050
_PRIME = 2**31 - 1
_SQL_TYPES = {int: "BIGINT", bool: "BOOLEAN", str: "VARCHAR", datetime: "TIMESTAMP"}

Columns = dict[str, list[Any]]  # a table to load: one list of values for each column name


@dataclass(frozen=True)
class Version:
    """One refresh of one billing month.

    `month` is its first day, `assembly_id` the refresh's name such as "20240203T050312Z", `rows`
    the exact number of data rows over all `parts` (headers not counted). Rows fewer than parts
    are legal, and no rows at all: AWS then writes headers alone.

    `restated` is the month as AWS rewrites it after its end. Its last `late_rows` rows are
    refunds and credits that came late, every row has its invoice id, and about one usage row in
    400 has 5 % more usage (unless a machine cannot run longer than its hour). Its other rows are
    the first rows of the version before: restate 10,000 rows as 10,015, and 21 are late and 6 of
    the former rows are gone. As at AWS, line item ids are new in every version.
    """

    month: date
    assembly_id: str
    rows: int
    parts: int = 2
    restated: bool = False

    def __post_init__(self) -> None:
        """Refuse what no bill can be."""
        if self.month.day != 1:
            raise ValueError(f"month must be the first day of a month, not {self.month}")
        if self.rows < 0 or self.parts < 1:
            raise ValueError(f"need rows >= 0 and parts >= 1, not {self.rows} and {self.parts}")

    @property
    def late_rows(self) -> int:
        """Return how many rows at the end AWS added after the month's end."""
        return -(-self.rows // LATE_EVERY) if self.restated else 0

    @property
    def period(self) -> str:
        """Return the folder of the month: first day and first day of the next month."""
        return f"{self.month:%Y%m%d}-{BillingMonth.of(self.month).next.first_day:%Y%m%d}"


def write_version(
    folder: Path,
    prefix: str,
    report_name: str,
    version: Version,
    *,
    columns: int = 125,
    seed: int = 7,
) -> Path:
    """Write one version of a month's export under `folder`, which stands for the bucket's root.

    `columns` is 67 to 205. `prefix` may be empty; slashes at its ends are dropped. Returns the
    path of the top-level manifest, which is written last and replaced in one step, as a reader
    takes a changed manifest to mean that all its files are there.
    """
    home = "/".join([*filter(None, [prefix.strip("/")]), report_name, version.period])
    keys = [
        f"{home}/{version.assembly_id}/{report_name}-{number:05d}.csv.gz"
        for number in range(1, version.parts + 1)
    ]
    headers = choose_headers(columns)
    (folder / home / version.assembly_id).mkdir(parents=True, exist_ok=True)
    _write_parts([folder / key for key in keys], headers, version, seed)
    manifest = json.dumps(_manifest(report_name, version, headers, keys), indent=2)
    name = f"{report_name}-Manifest.json"
    (folder / home / version.assembly_id / name).write_text(manifest, encoding="utf-8")
    unfinished = folder / home / f".{name}.unfinished"
    unfinished.write_text(manifest, encoding="utf-8")
    return unfinished.replace(folder / home / name)


def _manifest(
    report_name: str, version: Version, headers: Sequence[str], keys: Sequence[str]
) -> dict[str, object]:
    """Return the manifest's fields; AWS writes the period without dashes and with milliseconds."""
    start, end = version.period.split("-")
    return {
        "assemblyId": version.assembly_id,
        "account": PAYER_ACCOUNT,
        "columns": [
            {"category": category, "name": name, "type": manifest_type(header)}
            for header in headers
            for category, name in [header.split("/", 1)]
        ],
        "charset": "UTF-8",
        "compression": "GZIP",
        "contentType": "text/csv",
        "reportId": sha256(report_name.encode()).hexdigest(),
        "reportName": report_name,
        "billingPeriod": {"start": f"{start}T000000.000Z", "end": f"{end}T000000.000Z"},
        "bucket": BUCKET,
        "reportKeys": list(keys),
        "additionalArtifactKeys": [],
    }


def _write_parts(
    paths: Sequence[Path], headers: Sequence[str], version: Version, seed: int
) -> None:
    """Write every part; parts hold row numbers in order, in shares as equal as can be."""
    slots = month_slots(version.month, seed, final=version.restated)
    columns = _slot_columns(slots, headers)
    before_late = version.rows - version.late_rows
    query = (
        f"{_ROWS} SELECT {', '.join(_cell(header, columns) for header in headers)} FROM measured"
    )
    parameters = {
        "before_late": before_late,
        "last": _last_position(slots, before_late),
        "late_slots": len(slots) - SLOTS,
        "salt": int(sha256(f"{seed}/{version.month}".encode()).hexdigest()[:7], 16),
        "changed": CHANGED_PER_MILLE if version.restated else 1000,
        "assembly": f"{seed}/{version.assembly_id}",
    }
    edges = [version.rows * part // len(paths) for part in range(len(paths) + 1)]

    # A part has one thread and joins whose sides are not swapped: that keeps its rows in number
    # order without a sort. Parts run side by side instead.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        connection.execute(_MACROS)
        _load(connection, "slot", columns)
        _load(connection, "workload", _workload_columns())

        def write(part: int) -> None:
            own = {"path": str(paths[part]), "first": edges[part], "end": edges[part + 1]}
            with connection.cursor() as cursor:
                cursor.execute(
                    f"COPY ({query}) TO $path (FORMAT csv, HEADER, COMPRESSION gzip)",
                    parameters | own,
                )

        with ThreadPoolExecutor(max_workers=min(len(paths), os.cpu_count() or 1)) as pool:
            list(pool.map(write, range(len(paths))))


def _last_position(slots: Sequence[Slot], rows: int) -> int:
    """Return the slot of the last row that is not late: never one that a next row would offset."""
    position = (rows - 1) % SLOTS
    if slots[(position + 1) % SLOTS].behind:
        return next(n for n, slot in enumerate(slots) if slot.changes and not slot.edp_percent)
    return position


def _load(connection: duckdb.DuckDBPyConnection, table: str, columns: Columns) -> None:
    """Create a table from lists of equal length, typed by their first value that is not None."""
    chosen = ", ".join(
        f"unnest(?::{_SQL_TYPES[type(next(v for v in values if v is not None))]}[])"
        f" AS {quoted(name)}"
        for name, values in columns.items()
    )
    connection.execute(f"CREATE TABLE {table} AS SELECT {chosen}", list(columns.values()))


def _slot_columns(slots: Sequence[Slot], headers: Sequence[str]) -> Columns:
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
            for header in headers
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
    """Return the SQL of one column of the export; a column that nothing fills is all empty."""
    if header in _MEASURED_CELLS:
        value = _MEASURED_CELLS[header]
    elif header in TAG_ATTRIBUTES:
        value = f"CASE WHEN has_tags THEN {quoted(header)} END"
    else:
        value = quoted(header) if header in slot_columns else "NULL"
    return f"{value} AS {quoted(header)}"


# scatter() is the fifth power modulo a prime p: a permutation of 0..p-1, because 5 and p-1 have no
# common factor. draw() takes independent looking numbers from one scattered one. written() is
# number_text() in SQL.
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
