"""Where charges come from: one folder a vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finops_dagster.object_stores import ObjectStores
from finops_dagster.sources.aws.find_exports import discover
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.aws.source import AwsSource, aws_formats
from finops_dagster.sources.base import Format, Source
from finops_dagster.sources.find_exports import FoundExport, SearchedStore
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Vendor:
    """What there is of a vendor: the settings of its exports, what is made of them, and what
    finds exports that no settings name yet."""

    settings: type[ExportSettings]
    formats: Callable[[Any], Mapping[str, Format]]
    source: Callable[[Any, ObjectStores], Source]
    discover: Callable[[SearchedStore], Iterable[FoundExport]] = lambda _: ()


VENDORS: dict[str, Vendor] = {
    "aws": Vendor(AwsExport, lambda export: aws_formats(export.column_names), AwsSource, discover)
}
"""By their names in the settings; a project may add its own before it loads them."""
