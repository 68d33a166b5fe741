"""The settings of an AWS cost export."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings


class AwsExport(StoreSettings, ExportSettings):
    """A CUR v1, CUR 2.0 or FOCUS export. Without a `format`, the one that its layout shows is
    taken. `copied` says that the source is a copy, whose times are those of copying."""

    vendor: Literal["aws"]
    format: Literal["cur1", "cur2", "focus"] | None = None
    export_name: Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$")]
    column_names: Literal["flat", "athena"] = "flat"
    copied: bool = False
