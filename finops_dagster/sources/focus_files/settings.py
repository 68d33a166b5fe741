"""The settings of an export that is a folder of FOCUS files."""

from __future__ import annotations

from typing import Literal

from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources.settings import ExportSettings


class FocusFilesExport(StoreSettings, ExportSettings):
    """The settings of a folder of FOCUS files.

    `layout` is how the provider delivers: "replaced" is a folder for each month, of which the
    newest files count; "incremental" is files that are never changed and add up, as Oracle's.
    """

    vendor: Literal["focus-files"]
    layout: Literal["incremental", "replaced"]

    @property
    def shares_files(self) -> bool:
        """Whether a file may hold rows of several months."""
        return self.layout == "incremental"
