"""The settings of an AWS cost export."""

from __future__ import annotations

from typing import Literal

from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings, VendorsExportName


class AwsExport(StoreSettings, ExportSettings):
    """The settings of a CUR v1, CUR 2.0 or FOCUS export.

    `export_name` is the export's name in AWS, which is a folder below `source`. Without a `format`,
    the layout and the columns of each manifest show it. `column_names` is for CUR v1 alone: see
    AwsCur1. `copied` is for a copy of the vendor's bucket, where the times of objects are those of
    copying.
    """

    vendor: Literal["aws"]
    format: Literal["cur1", "cur2", "focus"] | None = None
    export_name: VendorsExportName
    column_names: Literal["flat", "athena"] = "flat"
    copied: bool = False
