"""Reads the loads, column names and restatements that the lake records, and restores them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

import duckdb

from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import restatement_number_in_footer, restatements_of_footer
from finops_dagster.billing.version import Load
from finops_dagster.lake.footer import LOADED_AT, version_of_footer
from finops_dagster.lake.lake import LakeFile
from finops_dagster.lake.relations import month_relation, parquet_relation
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import measure_month, verified_totals
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, lake_type, month_digest
from finops_dagster.tables.restatements import newest_restatement_number, overwrite_restatements


def names_from_footers(files: Iterable[LakeFile]) -> dict[str, str]:
    """Return {header: column name} from the footers of files; unreadable files are skipped.

    If files name a header's column differently, the name of the first file is returned.
    """
    names: dict[str, str] = {}
    for file in files:
        names = {**json.loads((file.footer_texts() or {}).get("columns", "{}")), **names}
    return names


def load_from_footer(file: LakeFile, export: str, month: BillingMonth, table: str) -> Load | None:
    """Return the load that a file's footer records; None if it records none.

    Also None if the file is missing or damaged. The load's `number` and `lake_sha256` are None, and
    its `state` is `loaded`. Files of earlier releases do not record `loaded_at`, which then is the
    time of the file. `table` is the name for the load; no table is read.
    """
    texts = file.footer_texts() or {}
    version = version_of_footer(texts)
    if version is None:
        return None
    text = texts.get(LOADED_AT)
    loaded_at = file.written_at() if text is None else datetime.fromisoformat(text)
    return Load(**vars(version), export=export, month=month, table=table, loaded_at=loaded_at)


def load_missing_in_ledger(
    connection: duckdb.DuckDBPyConnection,
    file: LakeFile,
    export: str,
    month: BillingMonth,
    table: str,
) -> Load | None:
    """Return the load that a lake in a store records, if the ledger has none of the month.

    With it, a machine without the billing table knows which version is loaded. None if the ledger
    has any load of the month, also a superseded one; if the lake is in a folder; and if the file is
    missing or damaged. To tell whether it is damaged, its bytes are read if the object's ETag is
    not the recorded one. Nothing is recorded in the ledger.
    """
    if not file.is_in_store or ledger.loads(connection, export, month):
        return None
    load = load_from_footer(file, export, month, table)
    return load if load and file.sha256() else None


def matches_checksum(load: Load, file: LakeFile) -> bool | None:
    """Return whether the file has the checksum that `load` records; None if it records none.

    The file must exist. In a folder, all of it is read.
    """
    return None if load.lake_sha256 is None else file.sha256() == load.lake_sha256


def verify_file_of_load(connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile) -> bool:
    """Return whether the file has the rows of the load; may record its checksum in the ledger.

    The file must exist, and have a footer. Its checksum is compared with that of `load`. Loads of
    earlier releases have none, and in a store another machine may have written the same version:
    then digests of the file's and the table's rows are compared, and if they agree, the ledger gets
    the file's checksum. False if DuckDB cannot read the rows of either; only its
    OutOfMemoryException is raised.
    """
    checksum = file.sha256()
    if checksum == load.lake_sha256:
        return True
    if not checksum or (load.lake_sha256 is not None and not file.is_in_store):
        return False
    prepare_casts(connection)
    types = {field.name: lake_type(field.type) for field in file.schema()}
    try:
        in_file, in_table = (
            month_digest(connection, rows, types, DigestKind.HASH)
            for rows in (parquet_relation(file.local_path()), month_relation(load))
        )
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        return False
    if in_file.differing_columns(in_table):
        return False
    ledger.update_load(connection, load, lake_sha256=checksum)
    return True


def file_has_totals(
    connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile, formats: Mapping[str, Format]
) -> bool:
    """Return whether the month's file has the totals of `load`, measured in its rows.

    `load` is that of `load_from_footer`, and `formats` are by name. False if DuckDB cannot read the
    file, or if the load's format is not in `formats`. Raises duckdb.OutOfMemoryException, and
    BillError or StoreError if a file in a store is damaged or gone.
    """
    if load.format not in formats:
        return False
    rows, bill_format = parquet_relation(file.local_path()), formats[load.format]
    try:
        measured = measure_month(connection, rows, load.month, bill_format, load.totals.sums)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        return False
    return measured.totals.first_difference(load.totals) is None


def record_lost_load(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, file: LakeFile
) -> bool:
    """Record a load that the ledger has lost, if the table has its rows; return whether it does.

    All rows of the month in the table must have the load's version id, and together its totals. The
    export's column names and the month's restatements are recorded too, from the footer of `file`.
    If it returns False, nothing was recorded. It writes in the caller's transaction, if there is
    one.
    """
    if verified_totals(connection, load, bill_format) is None:
        return False
    versions = connection.execute(
        f"SELECT DISTINCT manifest_id FROM {month_relation(load)}"
    ).fetchall()
    if versions not in ([], [(load.manifest_id,)]):
        return False
    ledger.restore_loads(connection, [load])
    ledger.record_export(connection, load, bill_format.vendor, names_from_footers([file]))
    restore_restatements_of_footer(connection, load, file)
    return True


def restore_restatements_of_footer(
    connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile
) -> int:
    """Record the restatements in a file's footer that the ledger lacks; return how many it wrote.

    They are of the load's month. One that the ledger has under the same number, but with other
    changes, is replaced, and counts. A missing or damaged file has none.
    """
    in_footer = restatements_of_footer(file.footer_texts() or {})
    return overwrite_restatements(connection, load.export, load.month, in_footer)


def restore_newer_restatements(
    connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile
) -> None:
    """Record the restatements in a file's footer if the footer has a newer one than the ledger.

    Only a ledger that was lost lacks a newer one. If only older ones are missing, nothing is done,
    unlike in `restore_restatements_of_footer`.
    """
    in_footer = restatement_number_in_footer(file.footer_texts() or {})
    if in_footer > newest_restatement_number(connection, load.export, load.month):
        restore_restatements_of_footer(connection, load, file)
