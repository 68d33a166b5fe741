"""The months of a report: the files of charges, their versions, and the states of the months."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError, reprocess_advice
from finops_dagster.billing.money import decimal_text, exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement, restatements_of_footer
from finops_dagster.billing.version import Load
from finops_dagster.focus.entries import COST, EFFECTIVE_COST
from finops_dagster.focus.month import ChargesRecord, focus_lake
from finops_dagster.lake import Lake, LakeFile, load_from_footer, map_months
from finops_dagster.reports.document import Document
from finops_dagster.reports.sums import NONE
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings

IN_PROGRESS, OPEN, RESTATED, FINAL = "in progress", "open", "restated", "final"
_STATES = (IN_PROGRESS, OPEN, RESTATED, FINAL)
"""The states of a month; over several exports, the first of theirs counts."""
_MEASURED = """
WITH measured AS (
    SELECT export, month, sum(charges) AS charges, (sum(billed), sum(effective)) AS costs
    FROM usage_sums GROUP BY ALL
), by_dimension AS (
    SELECT export, month, service IS NULL, region IS NULL, kind IS NULL,
           (sum(billed), sum(effective)) AS costs
    FROM cost_sums GROUP BY ALL
)
SELECT export, strftime(month, '%Y-%m'), charges, measured.costs,
       bool_and(by_dimension.costs = measured.costs)
FROM measured JOIN by_dimension USING (export, month) GROUP BY ALL
"""


@dataclass(frozen=True)
class MonthOfCharges:
    """The charges of a month of an export, and the bill from which they are derived.

    `file` has the charges, and `record` is the one in its footer. `lake` is that of the bills.
    """

    export: ExportSettings
    month: BillingMonth
    file: LakeFile
    record: ChargesRecord
    lake: Lake

    @cached_property
    def _bill_file(self) -> LakeFile:
        return self.lake.file(self.export.name, self.month)

    @cached_property
    def bill_load(self) -> Load | None:
        """The load of the month's bill in the lake.

        None if it is missing, or of another version than that from which the charges are derived.
        """
        name, table = self.export.name, self.export.table_name
        load = load_from_footer(self._bill_file, name, self.month, table)
        is_same = load and load.manifest_id == self.record.bill_version_ids.get(self.export.name)
        return load if is_same else None

    @property
    def bill_format(self) -> str:
        """The name of the bill's format; empty if `bill_load` is None."""
        return self.bill_load.format if self.bill_load else ""

    @cached_property
    def restatements(self) -> Sequence[Restatement]:
        """The restatements of the month, the newest first; none if `bill_load` is None."""
        texts = self._bill_file.footer_texts() if self.bill_load else None
        return restatements_of_footer(texts or {})

    def is_final(self, connection: DuckDBPyConnection) -> bool | None:
        """Return whether the month is final; None if the bill does not show it.

        None also if `bill_load` is None. Reads the rows of the bill.
        """
        if self.bill_load is None:
            return None
        bill_format = VENDORS[self.export.vendor].formats(self.export).get(self.bill_load.format)
        columns = self._bill_file.schema().names
        finality = bill_format and bill_format.finality_sql(columns)
        if finality is None:
            return None
        relation = self.lake.relation(connection, [self._bill_file])
        query = f"SELECT {finality} FROM {relation}"
        ((is_final,),) = connection.execute(query).fetchall()
        return None if is_final is None else bool(is_final)

    def is_late(self, restatement: Restatement) -> bool:
        """Return whether a restatement was loaded on `BillingMonth.closing_day` (UTC) or later."""
        return restatement.restated_at.date() >= self.month.closing_day

    def state(self, *, is_final: bool | None) -> str:
        """Return the state of the month: IN_PROGRESS, OPEN, RESTATED or FINAL.

        `is_final` is what the method `is_final` returns; with None, the month is not FINAL. A month
        that is over and has a late restatement is RESTATED, also if it is final.
        """
        if self.month >= BillingMonth.current():
            return IN_PROGRESS
        if any(map(self.is_late, self.restatements)):
            return RESTATED
        return FINAL if is_final else OPEN

    def equals_bill(self) -> bool | None:
        """Return whether the charges and their entries add up to the bill, in each currency.

        The bill was reconciled with the vendor's files when it was loaded. None if `bill_load` is
        None, or does not have the cost by currency.
        """
        if self.bill_load is None or self.bill_load.totals.costs is None:
            return None
        costs: dict[str, list[Decimal]] = defaultdict(list)
        for currency, cost in (self.record.version.totals.costs or {}).items():
            costs[currency].append(cost)
        for entry in self.record.entries:
            costs[entry.currency].append(entry.billed)
        for currency, cost in self.bill_load.totals.costs.items():
            costs[currency].append(-cost)
        return not any(map(exact_sum, costs.values()))


@dataclass(frozen=True)
class ReportMonths:
    """The charges of a report: `months` are consecutive, `charges` those of each export in them."""

    lake: Lake
    months: Sequence[BillingMonth]
    charges: Sequence[MonthOfCharges]

    @classmethod
    def of(
        cls, lake: Lake, exports: Iterable[ExportSettings], last: BillingMonth | None, count: int
    ) -> ReportMonths:
        """Return the charges of at most `count` months up to `last`, or up to the newest month.

        Reads the footers of the files, and not their rows. No month is before the first one with
        charges; without charges and `last`, there are no months. Raises BillError if no export has
        charges of `last`, and for a file that cannot be read.
        """
        files = [
            (month, export, file)
            for export in exports
            for month, file in focus_lake(lake).files(export.name).items()
        ]
        available = sorted({month for month, *_ in files})
        if last and last not in available:
            raise no_charges_error(last, available)
        end = last or max(available, default=None)
        months = [] if end is None else _months_up_to(end, available[0], count)
        needed = [item for item in sorted(files, key=lambda item: item[0]) if item[0] in months]
        charges = map_months(lake, lambda item: _month_of_charges(lake, *item), needed)
        return cls(lake, months, charges)

    def relation(
        self, connection: DuckDBPyConnection, months: Iterable[BillingMonth] | None = None
    ) -> Sql:
        """Return what follows FROM to read the charges of these months; by default, of all.

        One of the months at least must have charges.
        """
        chosen = set(self.months if months is None else months)
        files = [charges.file for charges in self.charges if charges.month in chosen]
        return focus_lake(self.lake).relation(connection, files)

    @property
    def newest_complete_month(self) -> BillingMonth:
        """The newest complete month; the newest month if none is complete. There must be a month.

        A month is complete if it is over, has charges, and has those of each export that has
        charges of the month before.
        """
        months = defaultdict[str, set[BillingMonth]](set)
        for charges in self.charges:
            months[charges.export.name].add(charges.month)
        complete = (
            month
            for month in reversed(self.months)
            if month < BillingMonth.current()
            and any(month in of_export for of_export in months.values())
            and all(month in m or month.previous not in m for m in months.values())
        )
        return next(complete, self.months[-1])


def _months_up_to(last: BillingMonth, earliest: BillingMonth, count: int) -> list[BillingMonth]:
    """Return `count` consecutive months up to `last`, but none before `earliest`."""
    months = [last]
    while len(months) < count and months[-1] > earliest:
        months.append(months[-1].previous)
    return months[::-1]


def _month_of_charges(
    lake: Lake, month: BillingMonth, export: ExportSettings, file: LakeFile
) -> MonthOfCharges:
    record = ChargesRecord.from_file(file)
    if record is None:
        raise BillError(f"{file.location} is damaged; {reprocess_advice(export.name, month)}")
    return MonthOfCharges(export, month, file, record, lake)


def require_recorded_totals(connection: DuckDBPyConnection, files: ReportMonths) -> None:
    """Raise BillError unless the sums of the charges equal those of their files' footers.

    The sums by service, by region and by kind must be the same, too. A load may have replaced a
    file since its footer was read. Needs the tables of `create_cost_and_usage_sums`.
    """
    measured = {
        (export, month): tuple(totals)
        for export, month, *totals in connection.execute(_MEASURED).fetchall()
    }
    for charges in files.charges:
        totals = charges.record.version.totals
        sums = totals.sums or {}
        recorded = (totals.rows, (sums.get(COST), sums.get(EFFECTIVE_COST)), True)
        key = (charges.export.name, str(charges.month))
        if totals.rows and measured.get(key) != recorded:
            raise BillError(
                f"{charges.file.location} does not have the totals of its record: it was replaced "
                "while it was read, or is damaged; write the report again; if that fails too, run "
                "finops state verify --deep"
            )


def add_versions(connection: DuckDBPyConnection, files: ReportMonths, document: Document) -> None:
    """Fill the document's `versions`, and the states of its months in `month_states`.

    `versions` gets a row for each month of each export. If the exports have different states of a
    month, the month gets the first one of IN_PROGRESS, OPEN, RESTATED and FINAL. The state of a
    month without charges is None.
    """
    states = defaultdict[int, list[str]](list)
    for charges in files.charges:
        month, is_final = files.months.index(charges.month), charges.is_final(connection)
        state = charges.state(is_final=is_final)
        states[month].append(state)
        row = {**_version_row(charges), "month": month, "state": state, "final": is_final}
        document["versions"].append(row)
    document["month_states"] = [
        min(states[month], key=_STATES.index, default=None) for month in range(len(files.months))
    ]


def _version_row(charges: MonthOfCharges) -> dict[str, Any]:
    bill, version = charges.bill_load, charges.record.version
    costs = version.totals.costs if bill is None else bill.totals.costs
    return {
        "export": charges.export.name,
        "vendor": charges.export.vendor,
        "version": version.manifest_id,
        "rows": bill and bill.totals.rows,
        "charges": version.totals.rows,
        "loaded_at": bill and bill.loaded_at and f"{bill.loaded_at:%Y-%m-%dT%H:%M:%SZ}",
        "totals": {
            currency or NONE: decimal_text(cost) for currency, cost in (costs or {}).items()
        },
        "equal": charges.equals_bill(),
    }


def no_charges_error(month: BillingMonth, available: Sequence[BillingMonth]) -> BillError:
    """Return the error that no export has charges of a month; `available` are those with charges.

    `available` is sorted.
    """
    advice = "run finops aws run-pipeline, or that of another vendor"
    if available:
        advice = f"choose one of the months with charges, {available[0]} to {available[-1]}"
    return BillError(f"no export has charges of {month}; {advice}")
