"""What `finops state verify` finds: a difference in a month, and the command that repairs it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.export import Export


class Repair(Enum):
    """What makes a month whole again, from the least to the most that is done."""

    RUN = 1
    """Run the month: what differs from the stage before it is made again."""
    FETCH = 2
    """Fetch the vendor's files again."""
    REPROCESS = 3
    """Do every stage again, from the vendor's files on."""
    LEDGER = 4
    """Make the ledger again from the data, and see then."""

    @classmethod
    def of(cls, several: Collection[Repair]) -> Repair:
        """Return the one that does for several differences of a month."""
        if {cls.RUN, cls.FETCH} <= set(several):
            return cls.REPROCESS
        return max(several, key=lambda one: one.value)


@dataclass(frozen=True)
class Difference:
    """What differs in one month, and what repairs it."""

    export: Export
    month: BillingMonth
    what: str
    repair: Repair = Repair.RUN

    def row(self) -> dict[str, str]:
        """Return it as a person reads it."""
        return {
            "export": self.export.name,
            "month": str(self.month),
            "what_differs": self.what,
            "mend": self._command(),
        }

    def _command(self) -> str:
        vendor, name, month = self.export.settings.vendor, self.export.name, self.month
        only = f"--export {name} --start-date {month} --end-date {month}"
        return {
            Repair.RUN: f"finops {vendor} run-pipeline {only}",
            Repair.FETCH: f"finops {vendor} extract-billing {only} --force",
            Repair.REPROCESS: f"finops state reprocess {name} {month}",
            Repair.LEDGER: "finops state verify --mend",
        }[self.repair]
