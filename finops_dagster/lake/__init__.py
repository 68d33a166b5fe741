"""The lake: one Parquet file for each month of an export, whose footer records its load."""

from finops_dagster.lake.addresses import LakeAddress, LakeSettings, open_lake
from finops_dagster.lake.folder import FolderFile, FolderLake
from finops_dagster.lake.footer import (
    distinct_texts,
    empty_columns,
    footer_texts,
    footer_texts_of_version,
    version_of_footer,
)
from finops_dagster.lake.history import LakeAsOf
from finops_dagster.lake.lake import THIS_MACHINE, Lake, LakeFile, LakeReader
from finops_dagster.lake.many_months import read_months
from finops_dagster.lake.records import (
    has_totals_of,
    load_from_footer,
    load_in_shared_lake,
    matches_checksum,
    names_from_footers,
    restore_load,
    restore_lost_restatements,
    restore_restatements_of_footer,
    verify_file,
)
from finops_dagster.lake.relations import month_relation, parquet_relation
from finops_dagster.lake.writing import exporting_month, replacing_file, write_parquet

__all__ = [
    "THIS_MACHINE",
    "FolderFile",
    "FolderLake",
    "Lake",
    "LakeAddress",
    "LakeAsOf",
    "LakeFile",
    "LakeReader",
    "LakeSettings",
    "distinct_texts",
    "empty_columns",
    "exporting_month",
    "footer_texts",
    "footer_texts_of_version",
    "has_totals_of",
    "load_from_footer",
    "load_in_shared_lake",
    "matches_checksum",
    "month_relation",
    "names_from_footers",
    "open_lake",
    "parquet_relation",
    "read_months",
    "replacing_file",
    "restore_load",
    "restore_lost_restatements",
    "restore_restatements_of_footer",
    "verify_file",
    "version_of_footer",
    "write_parquet",
]
