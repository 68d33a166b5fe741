"""The source of FOCUS files, by the layout of the settings."""

from __future__ import annotations

from finops_dagster.object_stores import ObjectStores
from finops_dagster.sources.base import SharedFilesReader, Source
from finops_dagster.sources.focus_files.incremental import IncrementalFiles
from finops_dagster.sources.focus_files.replaced import ReplacedFiles
from finops_dagster.sources.focus_files.settings import FocusFilesExport


def focus_files_source(
    export: FocusFilesExport, stores: ObjectStores, reader: SharedFilesReader | None
) -> Source:
    """Return the source of an export with FOCUS files, by its layout; opens the export's store.

    `reader` reads the months of files that months share, which only the layout "incremental" has.
    With None, no file is read, and its manifests must not be loaded: see IncrementalFiles.
    """
    if export.layout == "replaced":
        return ReplacedFiles(export, stores)
    return IncrementalFiles(export, stores, reader)
