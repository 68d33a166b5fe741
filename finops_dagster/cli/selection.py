"""Which months of which exports a command is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth

if TYPE_CHECKING:
    from finops_dagster.settings import Settings
    from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Selection:
    """The months from `start` to `end`, of one export or of all, of one vendor or of all."""

    vendor: str | None = None
    export: str | None = None
    start: str | None = None
    end: str | None = None

    def exports(self, settings: Settings) -> list[ExportSettings]:
        """Return the exports. Raises BillError where there are none."""
        of_vendor = [export for export in settings.exports if self.vendor in (None, export.vendor)]
        chosen = [export for export in of_vendor if self.export in (None, export.name)]
        if not chosen and self.export:
            names = ", ".join(export.name for export in of_vendor) or "none"
            raise BillError(f"there is no export {self.export!r}; the settings have {names}")
        if not chosen:
            raise BillError(
                f"the settings have no export of {self.vendor or 'any vendor'}: add an [[exports]] "
                "table; finops init writes an example"
            )
        return chosen

    def months(self, export: ExportSettings) -> list[BillingMonth]:
        """Return the export's months in the range, the newest first, which people wait for."""
        return [
            month
            for month in reversed(export.months())
            if (self.start or "") <= str(month) <= (self.end or "9999-12")
        ]
