"""Where bills come from: one folder for each vendor."""

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
from finops_dagster.sources.base import Format, SharedFilesReader, Source
from finops_dagster.sources.find_exports import FoundExport, SearchedStore
from finops_dagster.sources.focus_files.find_exports import discover as discover_focus_files
from finops_dagster.sources.focus_files.format import FocusFilesFormat
from finops_dagster.sources.focus_files.settings import FocusFilesExport
from finops_dagster.sources.focus_files.source import focus_files_source
from finops_dagster.sources.settings import ExportSettings


@dataclass(frozen=True)
class Vendor:
    """What the pipeline and the commands need of a vendor.

    `settings` is the class of an export's settings. `formats` returns the vendor's formats by name,
    for the settings of an export. `open_source` opens the store of an export and returns its
    source. It gets the settings, the stores, and a reader of files that months share; with None, no
    such file is read, and manifests of such files must not be loaded. `discover` finds exports in a
    store.
    """

    settings: type[ExportSettings]
    formats: Callable[[Any], Mapping[str, Format]]
    open_source: Callable[[Any, ObjectStores, SharedFilesReader | None], Source]
    discover: Callable[[SearchedStore], Iterable[FoundExport]] = lambda _: ()


VENDORS: dict[str, Vendor] = {
    "aws": Vendor(
        AwsExport,
        lambda export: aws_formats(export.column_names),
        lambda export, stores, _: AwsSource(export, stores),
        aws_exports,
    ),
    "azure": Vendor(
        AzureExport,
        lambda _: azure_formats(),
        lambda export, stores, _: AzureSource(export, stores),
        azure_exports,
    ),
    "focus-files": Vendor(
        FocusFilesExport,
        lambda _: {FocusFilesFormat.name: FocusFilesFormat()},
        focus_files_source,
        discover_focus_files,
    ),
}
"""The vendors by their names in the settings. A project may add its own before it loads them."""
