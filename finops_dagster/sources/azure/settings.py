"""The settings of an Azure cost export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings

ExportName = Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$")]


class AzureExport(StoreSettings, ExportSettings):
    """The settings of one dataset of one scope: a subscription, billing account or profile.

    Several exports of Azure may deliver it, such as a daily and a monthly one. `export_names` are
    their names; without them, all exports of the dataset below `source` are used.
    """

    vendor: Literal["azure"]
    format: Literal["focus", "actual", "amortized"]
    export_names: tuple[ExportName, ...] = ()
