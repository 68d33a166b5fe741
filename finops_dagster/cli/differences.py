"""What `finops state verify` finds, the command that repairs it, and what was not looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum

from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.output import Row
from finops_dagster.pipeline.export import Export

_LOOKED_AT = "event log, ledger, footers of Parquet files, rows and cost of DuckDB tables"
_LOOKED_AT_DEEP = (
    "event log, ledger, every byte of staged files and Parquet files, every column of Parquet "
    "files and DuckDB tables"
)


class Repair(Enum):
    """The command that makes a month whole again, from the least to the most that is done."""

    RUN = "finops {vendor} run-pipeline {only}"
    """What differs from the stage before it is made again."""
    FETCH = "finops {vendor} extract-billing {only} --force"
    REPROCESS = "finops state reprocess {export} {month}"
    LEDGER = "finops state verify --mend"
    """Make the ledger again from the data, and see then."""

    @classmethod
    def of(cls, several: Collection[Repair]) -> Repair:
        """Return the one that does for several differences of a month."""
        if {cls.RUN, cls.FETCH} <= set(several):
            return cls.REPROCESS
        return max(several, key=list(cls).index)


@dataclass(frozen=True)
class Difference:
    """What differs in one month, and what repairs it."""

    export: Export
    month: BillingMonth
    what: str
    repair: Repair = Repair.RUN

    def row(self) -> Row:
        """Return it as a person reads it."""
        name, month = self.export.name, str(self.month)
        only = f"--export {name} --start-date {month} --end-date {month}"
        command = self.repair.value.format(
            vendor=self.export.settings.vendor, export=name, month=month, only=only
        )
        return {"export": name, "month": month, "what_differs": self.what, "mend": command}


@dataclass
class Coverage:
    """The months that were looked at, `deep` or not, and what was passed over."""

    is_deep: bool
    warehouse: str | None
    """The warehouse's backend, where there is one."""
    months: int = 0
    without_data: Counter[str] = field(default_factory=Counter)
    """By export, how many months nothing is recorded of."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """By what was not looked at, in how many months."""

    def lines(self) -> Iterator[str]:
        """Yield what a person should know of it, a line each."""
        looked_at = _LOOKED_AT_DEEP if self.is_deep else _LOOKED_AT
        if self.warehouse is not None:
            looked_at += f", and of {self.warehouse}"
        yield f"looked at {_months(self.months)}: {looked_at}"
        if not self.is_deep:
            yield "not looked at: cells, pages of Parquet files, staged files; --deep reads all"
        for what, months in self.passed_over.items():
            yield f"not looked at in {_months(months)}: {what}"
        if exports := [f"{_months(n)} of {export}" for export, n in (+self.without_data).items()]:
            yield f"without data: {', '.join(exports)}"


def _months(number: int) -> str:
    return f"{number:,} month{'' if number == 1 else 's'}"
