"""The settings of an Azure cost export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import model_validator

from finops_dagster.billing.errors import excerpt
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings, VendorsExportName


class AzureExport(StoreSettings, ExportSettings):
    """The settings of one dataset of one scope: a subscription, billing account or profile.

    Several exports of Azure may deliver it, such as a daily and a monthly one. `export_names` are
    their names; without them, all exports of the dataset below `source` are used.

    The charges of actual costs are derived from two exports, as FOCUS also has the amortized cost:
    `amortized_from` of the actual export names the amortized one. The charges are the actual
    export's.
    """

    vendor: Literal["azure"]
    format: Literal["focus", "actual", "amortized"]
    export_names: tuple[VendorsExportName, ...] = ()
    amortized_from: str | None = None

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.amortized_from is not None and self.format != "actual":
            raise ValueError(
                f"amortized_from belongs to actual costs, not to {self.format}; remove it"
            )
        return self

    @property
    def bill_exports_by_dataset(self) -> Mapping[str, str] | None:
        """The names of the exports from whose bills this export's charges are derived, by dataset.

        For FOCUS it is this export alone, with the dataset "". For actual costs with
        `amortized_from` these are this export as "actual" and the other as "amortized". None for
        amortized costs, and for actual costs without `amortized_from`.
        """
        if self.format == "focus":
            return super().bill_exports_by_dataset
        if self.amortized_from is None:
            return None
        return {"actual": self.name, "amortized": self.amortized_from}

    def check_named_exports(self, exports: Sequence[ExportSettings]) -> None:
        """Raise ValueError if `amortized_from` names an export that it may not name.

        It must be None, or the name of an Azure export of amortized costs that no other export
        names in its `amortized_from`. `exports` are all of the settings.
        """
        if self.amortized_from is None:
            return
        ours = [e for e in exports if isinstance(e, AzureExport)]
        problem = ""
        if not any(e.name == self.amortized_from and e.format == "amortized" for e in ours):
            problem = 'is not the name of an Azure export of format = "amortized"; correct it'
        if others := [e for e in ours if e != self and e.amortized_from == self.amortized_from]:
            problem = f"is also named by {others[0].name!r}; remove one of the two"
        if problem:
            raise ValueError(
                f"amortized_from = {excerpt(self.amortized_from)} of {self.name!r} {problem}"
            )
