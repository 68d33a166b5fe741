"""The lake: one Parquet file for each month of an export, whose footer records its load."""

from finops_dagster.lake.addresses import LakeAddress, LakeSettings, open_lake
from finops_dagster.lake.folder import FolderFile, FolderLake
from finops_dagster.lake.footer import (
    distinct_values_in_footer,
    footer_texts,
    footer_texts_of_version,
    null_columns,
    version_of_footer,
)
from finops_dagster.lake.history import LakeAsOf
from finops_dagster.lake.lake import THIS_MACHINE, Lake, LakeFile, LakeReader
from finops_dagster.lake.many_months import map_months
from finops_dagster.lake.records import (
    file_has_totals,
    load_from_footer,
    load_missing_in_ledger,
    matches_checksum,
    names_from_footers,
    record_lost_load,
    restore_newer_restatements,
    restore_restatements_of_footer,
    verify_file_of_load,
)
from finops_dagster.lake.relations import month_relation, parquet_relation
from finops_dagster.lake.writing import replacing_lake_file, write_parquet, writing_month_to_lake

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
    "distinct_values_in_footer",
    "file_has_totals",
    "footer_texts",
    "footer_texts_of_version",
    "load_from_footer",
    "load_missing_in_ledger",
    "map_months",
    "matches_checksum",
    "month_relation",
    "names_from_footers",
    "null_columns",
    "open_lake",
    "parquet_relation",
    "record_lost_load",
    "replacing_lake_file",
    "restore_newer_restatements",
    "restore_restatements_of_footer",
    "verify_file_of_load",
    "version_of_footer",
    "write_parquet",
    "writing_month_to_lake",
]
