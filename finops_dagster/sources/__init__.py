"""Where charges come from: one folder a vendor."""

from __future__ import annotations

from dataclasses import dataclass

from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Vendor:
    """What there is of a vendor: the settings of its exports."""

    settings: type[ExportSettings]


VENDORS: dict[str, Vendor] = {"aws": Vendor(AwsExport)}
"""By their names in the settings; a project may add its own before it loads them."""
