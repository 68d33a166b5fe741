"""Which months of which exports a command is for."""

from __future__ import annotations

from dataclasses import dataclass

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Asked:
    """The months from `start` to `end`, of one export or of all, of one vendor or of all."""

    vendor: str | None = None
    export: str | None = None
    start: str | None = None
    end: str | None = None

    def exports(self, settings: Settings) -> list[ExportSettings]:
        """The exports. Raises BillError where there are none."""
        of_vendor = [one for one in settings.exports if self.vendor in (None, one.vendor)]
        chosen = [one for one in of_vendor if self.export in (None, one.name)]
        if not chosen:
            if self.export:
                names = ", ".join(export.name for export in of_vendor) or "none"
                raise BillError(f"there is no export {self.export!r}; the settings have {names}")
            raise BillError(
                f"the settings have no export of {self.vendor or 'any vendor'}: add an [[exports]] "
                "table; finops init writes an example"
            )
        return chosen

    def months(self, export: ExportSettings) -> list[BillingMonth]:
        """Return the export's months in the range, the newest first: it is the one that people wait
        for."""
        return [
            month
            for month in reversed(export.months())
            if (self.start or "") <= str(month) <= (self.end or "9999-12")
        ]
