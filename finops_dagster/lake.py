"""The lake: one Parquet file a month of an export, whose metadata is the record of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
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
from finops_dagster.billing.errors import BillError, FileInvalid, first_line
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load, LoadedVersion
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, column_type, month_digest
from finops_dagster.tables.load import MonthLoader, measure_month, verified_totals
from finops_dagster.tables.parquet_files import parquet_file

# Wide rows in DuckDB's default groups of 122,880 spill under a small memory_limit, at four times
# the time; groups of 40,960 do not, for a file that is 8 % larger.
_ROW_GROUP_ROWS = 40_960


@dataclass(frozen=True)
class Lake:
    """Files of the form `<root>/<export>/billing_month=2024-01/<export>-2024-01.parquet`, which
    anybody may read at any time."""

    root: Path

    def path(self, export: str, month: BillingMonth) -> Path:
        """Return where the month's file lies, or will lie."""
        return self.root / export / f"billing_month={month}" / f"{export}-{month}.parquet"

    def paths(self, export: str) -> list[Path]:
        """Return the files of all months that are there, the oldest month first."""
        return sorted(Path(self.root, export).glob("billing_month=*/*.parquet"))


# A row of the ledger as a file's metadata has it: texts, and JSON under names of its own.
_TEXTS = {"manifest_id": "", "total_cost": "", "format": "cur1", "run_id": ""}
_JSON = {"file_count": "files", "byte_count": "bytes", "files": "source_files"} | {
    name: name for name in ("decimals_rounded", "money_sums", "cost_by_currency")
}


def read_footer(path: Path) -> LoadedVersion | None:
    """Read the record of a whole file that this project wrote, without reading a row and without an
    engine; None for anything else. What the first files did not have is None of them."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return None
    words = {key.decode(): text.decode() for key, text in (metadata.metadata or {}).items()}
    if "manifest_id" not in words or "total_cost" not in words:
        return None
    words = {**_TEXTS, "files": "0", "bytes": "0", **words}
    row = {name: json.loads(words.get(key, "null")) for name, key in _JSON.items()}
    row |= {name: words[name] for name in _TEXTS}
    return LoadedVersion.of_row({**row, "row_count": metadata.num_rows})


def _words(load: Load, names: dict[str, str]) -> dict[str, str]:
    """What `read_footer` and `column_names` read."""
    row = load.row()
    return {
        "export": load.export,
        "columns": json.dumps(names),
        **{name: row[name] for name in _TEXTS},
        **{key: json.dumps(row[name]) for name, key in _JSON.items()},
    }


def names_by_header(paths: Iterable[Path]) -> dict[str, str]:
    """Return the column name that each header was given in any of these files; the first file's
    word counts. So a lost database, or one a month, gives the names that the lake has already."""
    names: dict[str, str] = {}
    for path in paths:
        with suppress(OSError, pa.ArrowInvalid):
            words = pq.read_metadata(path).metadata or {}
            names = {**json.loads(words.get(b"columns", b"{}")), **names}
    return names


def load_from_footer(path: Path, export: str, month: BillingMonth, table: str) -> Load | None:
    """Return the load that the month's file was written from, by its record."""
    record = read_footer(path)
    if record is None:
        return None
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    return Load(**vars(record), export=export, month=month, table=table, loaded_at=written)


def parquet_relation(path: Path) -> Sql:
    """Return the file as a table expression, its `billing_month` its own and not the folder's."""
    return Sql(f"read_parquet({file_literal(path)}, hive_partitioning = false)")


def table_rows(load: Load) -> Sql:
    """Return the month's rows in the billing table, as what follows FROM."""
    first_day = Sql(f"DATE {literal(str(load.month.first_day))}")
    return Sql(f"{quoted(load.table)} WHERE billing_month = {first_day}")


def file_sha256(path: Path) -> str:
    """Return the checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exporting_month(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path, bill_format: Format
) -> Iterator[int]:
    """Write the month's rows beside `path`, reconcile them with the ledger, and put them in place.

    The block runs before the file is put in place, and is given its size in bytes. On any error,
    also of the block, the old file stays. A reader sees the whole old file or the whole new one.
    Raises ReconciliationError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    words = _words(load, ledger.names_by_header(connection, load.table))
    metadata = ", ".join(f"{name}: {literal(text)}" for name, text in words.items())
    try:
        options = Sql(f", KV_METADATA {{{metadata}}}")
        _write(connection, Sql(f"FROM {table_rows(load)}"), part, options)
        measured = measure_month(
            connection, parquet_relation(part), load.month, bill_format, load.totals.sums
        )
        reconcile(str(path), load.totals, measured)
        yield part.stat().st_size
        # Before the rename: a file in place without its own checksum would pass for a damaged one.
        ledger.complete_load(connection, load, lake_sha256=file_sha256(part))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_rows(connection: duckdb.DuckDBPyConnection, rows: Sql, path: Path, source: Path) -> None:
    """Write the rows of a month's file, `source`, once more to `path`, in other types. Raises
    BillError."""
    try:
        _write(connection, rows, path)
    except duckdb.Error as error:
        raise BillError(f"{source} cannot be read: {first_line(error)}") from error


def _write(
    connection: duckdb.DuckDBPyConnection, rows: Sql, path: Path, options: Sql | None = None
) -> None:
    # Where its statistics show no NULL, DuckDB writes a column as REQUIRED, and months would
    # differ in their schema: BigQuery refuses such a file for a table with NULLABLE columns.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        connection.execute(
            f"COPY ({rows}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd, "
            f"ROW_GROUP_SIZE {_ROW_GROUP_ROWS}{options or Sql('')})"
        )
    finally:
        connection.execute("RESET disabled_optimizers")


def matches_checksum(load: Load, path: Path) -> bool | None:
    """Return whether the file is, byte by byte, the one that was written from this load; None where
    the ledger does not know its checksum."""
    return None if load.lake_sha256 is None else file_sha256(path) == load.lake_sha256


def is_intact(connection: duckdb.DuckDBPyConnection, load: Load, path: Path) -> bool:
    """Return whether the file is as it was written. One that was written before checksums were kept
    is compared with the table once, and then has a checksum too."""
    intact = matches_checksum(load, path)
    if intact is not None:
        return intact
    checksum = file_sha256(path)
    prepare_casts(connection)
    types = {field.name: column_type(field.type) for field in pq.read_schema(path)}
    try:
        in_file, in_table = (
            month_digest(connection, rows, types, DigestKind.HASH)
            for rows in (parquet_relation(path), table_rows(load))
        )
    except duckdb.Error:
        return False
    if in_file.differing_columns(in_table):
        return False
    ledger.complete_load(connection, load, lake_sha256=checksum)
    return True


def restore_load(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, path: Path
) -> bool:
    """Write into the ledger what was once recorded of the month, with the names of its columns from
    its Parquet file, if the table proves it: all its rows are of this version, as many, and cost as
    much. Return whether it does."""
    if verified_totals(connection, load, bill_format) is None:
        return False
    versions = connection.execute(f"SELECT DISTINCT manifest_id FROM {table_rows(load)}").fetchall()
    if versions not in ([], [(load.manifest_id,)]):
        return False
    ledger.restore_loads(connection, [load])
    ledger.record_export(connection, load, bill_format.vendor, names_by_header([path]))
    return True


@contextmanager
def restoring_month(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, path: Path
) -> Iterator[tuple[Load, list[str]]]:
    """Replace the month by the rows of the lake's file of this load, in one transaction, of which
    the block is the last part. Raises FileInvalid, and ReconciliationError where the file does not
    hold what it says."""
    prepare_casts(connection)
    month = MonthLoader(connection, load, bill_format)
    try:
        described = connection.execute(f"DESCRIBE FROM {parquet_relation(path)}").fetchall()
        mappings = [
            month.column_mapping(name, name, SqlType(of_type), name)
            for name, of_type, *_ in described[len(ADDED_COLUMNS) :]
        ]
        with month.writing_rows([parquet_file(path)], mappings, names_by_header([path])) as written:
            yield written
    except duckdb.Error as error:
        raise FileInvalid(
            f"{path} cannot be read: {first_line(error)}; finops state reprocess {load.export} "
            f"{load.month} fetches the vendor's files again"
        ) from error
