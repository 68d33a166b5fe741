"""The lake: one Parquet file for each month of an export, whose footer records its load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import (
    ADDED_COLUMNS,
    Sql,
    SqlType,
    file_literal,
    literal,
    quoted,
)
from finops_dagster.billing.errors import (
    BillError,
    FileInvalid,
    first_line,
    reprocess_advice,
)
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import (
    footer_of_restatements,
    newest_number_in_footer,
    restatements_of_footer,
)
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, column_type, month_digest
from finops_dagster.tables.load import MonthLoader, measure_month, verified_totals
from finops_dagster.tables.parquet_files import parquet_file
from finops_dagster.tables.restatements import (
    newest_number,
    restatements,
    restore_restatements,
)

# In DuckDB's default groups of 122,880, wide rows spill to disk under a small memory_limit and take
# four times as long; groups of 40,960 do not, and make the file 8 % larger.
_ROW_GROUP_ROWS = 40_960
# DuckDB prepares room for a dictionary of this many values for each column and row group. Its
# default, a fifth of the rows, takes a tenth more time. No file grows: dictionaries are smaller.
_DICTIONARY_VALUES = 2_000


@dataclass(frozen=True)
class Lake:
    """The Parquet files of the exports, which may be read at any time.

    `<root>/<export>/billing_month=2024-01/<export>-2024-01.parquet`
    """

    root: Path

    def path(self, export: str, month: BillingMonth) -> Path:
        """Return the path of the month's file, which may not exist yet."""
        return self.root / export / f"billing_month={month}" / f"{export}-{month}.parquet"

    def paths(self, export: str) -> list[Path]:
        """Return the existing files of all months, the oldest month first."""
        return sorted(Path(self.root, export).glob("billing_month=*/*.parquet"))


# Footer keys with texts, and their defaults: the first files have no `format` and no `run_id`.
_TEXTS = {"manifest_id": "", "total_cost": "", "format": "cur1", "run_id": ""}
# Row fields stored as JSON, and their footer keys. The footer's "files" is a number.
_JSON = {"file_count": "files", "byte_count": "bytes", "files": "source_files"} | {
    name: name for name in ("decimals_rounded", "money_sums", "cost_by_currency", "delivery")
}
_LOADED_AT = "loaded_at"


def read_footer(path: Path) -> LoadedVersion | None:
    """Return the version in a file's footer; None if the file is missing, damaged, or not ours.

    Fields that old files lack get their defaults. No rows are read.
    """
    texts = footer_texts(path)
    return None if texts is None else version_of_footer(texts)


def footer_texts(path: Path) -> dict[str, str] | None:
    """Return the texts in a file's footer by key; None if the file is missing or damaged.

    The number of rows is added as `row_count`.
    """
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return None
    texts = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    return {**texts, "row_count": str(metadata.num_rows)}


def empty_columns(path: Path) -> set[str]:
    """Return the columns that have no value in any row of a file; maps count as filled.

    The footer alone is read.
    """
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {
        metadata.schema.column(number).path
        for number in range(metadata.num_columns)
        if metadata.schema.column(number).max_repetition_level == 0
        and all(_is_empty(group.column(number)) for group in groups)
    }


def _is_empty(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.is_stats_set and chunk.statistics.null_count == chunk.num_values)


def version_of_footer(texts: Mapping[str, str]) -> LoadedVersion | None:
    """Return the version that the texts of a footer record; None if they are not ours."""
    if "manifest_id" not in texts or "total_cost" not in texts:
        return None
    texts = {**_TEXTS, "files": "0", "bytes": "0", **texts}
    row = {name: json.loads(texts.get(key, "null")) for name, key in _JSON.items()}
    row |= {name: texts[name] for name in _TEXTS}
    return LoadedVersion.of_row({**row, "row_count": int(texts["row_count"])})


def footer_of(version: LoadedVersion) -> dict[str, str]:
    """Return the texts that `version_of_footer` reads."""
    row = version.row()
    return {
        **{name: row[name] for name in _TEXTS},
        **{key: json.dumps(row[name]) for name, key in _JSON.items()},
    }


def _footer(connection: duckdb.DuckDBPyConnection, load: Load) -> dict[str, str]:
    """Return the footer of a load's file, with what only the ledger knows of its month."""
    return {
        "export": load.export,
        "columns": json.dumps(ledger.names_by_header(connection, load.table)),
        **_footer_of_time(load),
        **footer_of(load),
        **footer_of_restatements(restatements(connection, load.export, load.month)),
    }


def _footer_of_time(load: Load) -> dict[str, str]:
    # The time of the file is not enough: a copy or a restored backup has another one.
    return {} if load.loaded_at is None else {_LOADED_AT: load.loaded_at.isoformat()}


def names_from_footers(paths: Iterable[Path]) -> dict[str, str]:
    """Return {header: column name} from the footers of files; unreadable files are skipped.

    If two files differ, the first one wins. With these names, a database that is new or holds one
    month gives columns the names that they have in the lake.
    """
    names: dict[str, str] = {}
    for path in paths:
        with suppress(OSError, pa.ArrowInvalid):
            footer = pq.read_metadata(path).metadata or {}
            names = {**json.loads(footer.get(b"columns", b"{}")), **names}
    return names


def load_from_footer(path: Path, export: str, month: BillingMonth, table: str) -> Load | None:
    """Return the load that a file's footer records; None if `read_footer` finds none.

    Its `number` and `lake_sha256` are None. Files of earlier releases do not record `loaded_at`,
    which then is the time of the file. `table` is the table that the month belongs to; it is not
    read.
    """
    texts = footer_texts(path) or {}
    version = version_of_footer(texts)
    if version is None:
        return None
    if _LOADED_AT in texts:
        loaded_at = datetime.fromisoformat(texts[_LOADED_AT])
    else:
        loaded_at = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    return Load(**vars(version), export=export, month=month, table=table, loaded_at=loaded_at)


def parquet_relation(path: Path) -> Sql:
    """Return what follows FROM to read the file, with the columns that are stored in it."""
    # DuckDB would replace the DATE by the text in the folder's name.
    return Sql(f"read_parquet({file_literal(path)}, hive_partitioning = false)")


def month_relation(load: Load) -> Sql:
    """Return what follows FROM to read all rows of the load's month in its table, of any version.

    It ends with a WHERE clause.
    """
    first_day = Sql(f"DATE {literal(str(load.month.first_day))}")
    return Sql(f"{quoted(load.table)} WHERE billing_month = {first_day}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exporting_month(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path, bill_format: Format
) -> Iterator[int]:
    """Write the month's rows to a Parquet file, reconcile it, and replace the file at `path` by it.

    `load` is the ledger's load of the month, with the totals that were measured in the table. The
    block runs before the replacement, and gets the new file's size in bytes. After the block, the
    ledger gets the new file's checksum. On any error, also in the block, the old file stays.
    Readers see the whole old file or the whole new one. Raises ReconciliationError.
    """
    recover_restatements(connection, load, path)
    footer = _footer(connection, load)
    with replacing_file(connection, Sql(f"FROM {month_relation(load)}"), path, footer) as part:
        measured = measure_month(
            connection, parquet_relation(part), load.month, bill_format, load.totals.sums
        )
        advice = reprocess_advice(load.export, load.month)
        reconcile(str(path), load.totals, measured, advice)
        yield part.stat().st_size
        # Before the rename: a file whose checksum is not in the ledger would count as damaged.
        ledger.complete_load(connection, load, lake_sha256=file_sha256(part))


@contextmanager
def replacing_file(
    connection: duckdb.DuckDBPyConnection, query: Sql, path: Path, footer: Mapping[str, str]
) -> Iterator[Path]:
    """Write the rows of a query to a new Parquet file, which replaces the one at `path`.

    The block gets the path of the new file, and runs before the replacement. On any error, also in
    the block, the old file stays. Readers see the whole old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    metadata = ", ".join(f"{quoted(name)}: {literal(text)}" for name, text in footer.items())
    try:
        _copy(connection, query, part, Sql(f", KV_METADATA {{{metadata}}}"))
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_parquet(
    connection: duckdb.DuckDBPyConnection, query: Sql, path: Path, original: Path
) -> None:
    """Write the rows of a query to a new Parquet file without a footer of a load.

    `original` is the month's file that the query reads. A BillError about it is raised if the query
    fails.
    """
    try:
        _copy(connection, query, path)
    except duckdb.Error as error:
        raise BillError(
            f"{original} cannot be read: {first_line(error)}; "
            "run finops state verify --deep --repair"
        ) from error


def _copy(
    connection: duckdb.DuckDBPyConnection, query: Sql, path: Path, options: Sql | None = None
) -> None:
    # DuckDB writes a column without NULLs in its statistics as REQUIRED. The files of two months
    # would differ in their schema, and BigQuery refuses such a file for a NULLABLE column.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        connection.execute(
            f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd, "
            f"ROW_GROUP_SIZE {_ROW_GROUP_ROWS}, "
            f"DICTIONARY_SIZE_LIMIT {_DICTIONARY_VALUES}{options or Sql('')})"
        )
    finally:
        connection.execute("RESET disabled_optimizers")


def matches_checksum(load: Load, path: Path) -> bool | None:
    """Return whether the file has the checksum that `load` records; None if it records none.

    The file must exist, and is read whole.
    """
    return None if load.lake_sha256 is None else file_sha256(path) == load.lake_sha256


def is_intact(connection: duckdb.DuckDBPyConnection, load: Load, path: Path) -> bool:
    """Return whether the file, which must exist, has the bytes that were written from the load.

    Its checksum is compared with that of `load`. Loads of old releases have none: then the file is
    compared with the table by digests, and if they agree, the ledger gets the checksum.
    """
    is_unchanged = matches_checksum(load, path)
    if is_unchanged is not None:
        return is_unchanged
    checksum = file_sha256(path)
    prepare_casts(connection)
    types = {field.name: column_type(field.type) for field in pq.read_schema(path)}
    try:
        in_file, in_table = (
            month_digest(connection, rows, types, DigestKind.HASH)
            for rows in (parquet_relation(path), month_relation(load))
        )
    except duckdb.Error:
        return False
    if in_file.differing_columns(in_table):
        return False
    ledger.complete_load(connection, load, lake_sha256=checksum)
    return True


def has_rows_of(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path, formats: Mapping[str, Format]
) -> bool:
    """Return whether a Parquet file can be read and has the totals of `load`, which it records.

    False too for a format that is not among `formats`, which are by name.
    """
    if load.format not in formats:
        return False
    rows, bill_format = parquet_relation(path), formats[load.format]
    try:
        measured = measure_month(connection, rows, load.month, bill_format, load.totals.sums)
    except duckdb.Error:
        return False
    return measured.totals.difference(load.totals) is None


def restore_load(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, path: Path
) -> bool:
    """Record a load that the ledger has lost, if the table has its rows; return whether it does.

    All rows of the month must be of its version, and have its totals. The export's column names and
    the month's restatements are recorded too, from the footer of the Parquet file at `path`.
    """
    if verified_totals(connection, load, bill_format) is None:
        return False
    versions = connection.execute(
        f"SELECT DISTINCT manifest_id FROM {month_relation(load)}"
    ).fetchall()
    if versions not in ([], [(load.manifest_id,)]):
        return False
    ledger.restore_loads(connection, [load])
    ledger.record_export(connection, load, bill_format.vendor, names_from_footers([path]))
    restore_restatements_of_footer(connection, load, path)
    return True


def restore_restatements_of_footer(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path
) -> int:
    """Record the restatements in a Parquet file's footer that the ledger lacks for a load's month.

    Returns how many it lacked.
    """
    in_footer = restatements_of_footer(footer_texts(path) or {})
    return restore_restatements(connection, load.export, load.month, in_footer)


def recover_restatements(connection: duckdb.DuckDBPyConnection, load: Load, path: Path) -> None:
    """Record the restatements in a Parquet file's footer if it has newer ones than the ledger.

    Only a ledger that was lost lacks them.
    """
    in_footer = newest_number_in_footer(footer_texts(path) or {})
    if in_footer > newest_number(connection, load.export, load.month):
        restore_restatements_of_footer(connection, load, path)


@contextmanager
def restoring_month(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, path: Path
) -> Iterator[tuple[Load, list[str]]]:
    """Load the month into the billing table from its Parquet file at `path`, and record the load.

    Both are one transaction. The block runs before the commit, and gets the recorded load and the
    warnings about columns. `load` is that of `load_from_footer`. Raises BillError: FileInvalid if
    the file cannot be read, ReconciliationError if it does not have the totals of its footer.
    """
    prepare_casts(connection)
    loader = MonthLoader(connection, load, bill_format)
    try:
        described = connection.execute(f"DESCRIBE FROM {parquet_relation(path)}").fetchall()
        mappings = [
            loader.column_mapping(name, name, SqlType(sql_type), name)
            for name, sql_type, *_ in described[len(ADDED_COLUMNS) :]
        ]
        with loader.writing_rows(
            [parquet_file(path)], mappings, names_from_footers([path])
        ) as loaded:
            yield loaded
    except duckdb.Error as error:
        raise FileInvalid(
            f"{path} cannot be read: {first_line(error)}; "
            f"{reprocess_advice(load.export, load.month)}"
        ) from error
