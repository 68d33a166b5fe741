"""The registration of the lake's files in the Iceberg catalog, by the stages that write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from finops_dagster.billing.errors import count_text, escaped
from finops_dagster.lake import Lake
from finops_dagster.pipeline.checks import IN_CATALOG, Check
from finops_dagster.pipeline.export import Export

if TYPE_CHECKING:
    from finops_dagster.lake.catalog import IcebergCatalog

OpenCatalog = Callable[[], "IcebergCatalog"] | None
"""Opens the catalog of the settings; None if they have none."""


def catalog_checks(open_catalog: OpenCatalog) -> Sequence[Check]:
    """Return the check `in_catalog` for a stage that registers files; nothing without a catalog."""
    return [IN_CATALOG] if open_catalog else []


def register_files(
    open_catalog: OpenCatalog,
    lake: Lake,
    export: Export,
    table: str,
    on_warning: Callable[[str], object],
) -> Sequence[dg.AssetCheckResult]:
    """Register the lake's files of an export in a table of the catalog; remove replaced ones.

    Returns the result of the check `in_catalog`; an empty list without a catalog. An error of the
    catalog only makes the check fail, and `on_warning` gets its message: the month's file stays,
    and the next run of any month of the export registers it.
    """
    if open_catalog is None:
        return []
    from finops_dagster.lake.catalog import CatalogError

    try:
        change = open_catalog().register(lake, export.name, table)
    except CatalogError as error:
        message = escaped(
            f"{error}; the lake has the month, and the next run of any month of the export "
            "registers it"
        )
        on_warning(message)
        return [IN_CATALOG.warning_result(passed=False, description=message)]
    files = count_text(len(change.added), "file"), count_text(len(change.removed), "file")
    description = f"{change.table}: {files[0]} added, {files[1]} removed."
    return [IN_CATALOG.warning_result(passed=True, description=description)]
