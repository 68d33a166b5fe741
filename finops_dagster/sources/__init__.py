"""Sources of charges: one folder for each vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finops_dagster.object_stores import ObjectStores
from finops_dagster.sources.aws.find_exports import discover as aws_exports
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.aws.source import AwsSource, aws_formats
from finops_dagster.sources.azure.find_exports import discover as azure_exports
from finops_dagster.sources.azure.format import azure_formats
from finops_dagster.sources.azure.settings import AzureExport
from finops_dagster.sources.azure.source import AzureSource
from finops_dagster.sources.base import Format, Source
from finops_dagster.sources.find_exports import FoundExport, SearchedStore
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster.sources.focus_files.replaced import ReplacedFiles
from finops_dagster.sources.focus_files.settings import FocusFilesExport
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Vendor:
    """The parts of a vendor, each made of an export's settings.

    `discover` finds exports in a store for `finops init`.
    """

    settings: type[ExportSettings]
    formats: Callable[[Any], Mapping[str, Format]]
    source: Callable[[Any, ObjectStores], Source]
    discover: Callable[[SearchedStore], Iterable[FoundExport]] = lambda _: ()


VENDORS: dict[str, Vendor] = {
    "aws": Vendor(
        AwsExport, lambda export: aws_formats(export.column_names), AwsSource, aws_exports
    ),
    "azure": Vendor(AzureExport, lambda _: azure_formats(), AzureSource, azure_exports),
    "focus-files": Vendor(
        FocusFilesExport,
        lambda _: {FocusFilesFormat.name: FocusFilesFormat()},
        ReplacedFiles,
    ),
}
"""The vendors by their names in the settings. A project may add its own before it loads them."""
