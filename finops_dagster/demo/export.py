"""Write an example bill as AWS delivers it: the same rows and keys for the same seed everywhere.

kinds.csv     what an invented company buys from AWS; company.sql has what it is and where
charges.sql   its charges, one a row and as many as are wanted: the small model of a bill
columns.py    how each layout shows a charge, from the tables cur1.csv, cur2.csv and focus.csv
delivery.py   where the files of a layout lie, and its manifests
export.py     charges and columns joined by DuckDB, and written to files
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.demo.delivery import Delivery
from finops_dagster.demo.layout import Files, Layout, Version
from finops_dagster.tables.database import DuckDB

__all__ = ["Layout", "Version", "write_version"]

_FOLDER = Path(__file__).parent
_COMPANY, _CHARGES = ((_FOLDER / f"{name}.sql").read_text() for name in ("company", "charges"))
_CUR1 = Layout()
_COPY_OPTIONS = {
    "gzip": "FORMAT csv, HEADER, COMPRESSION gzip",
    "zip": "FORMAT csv, HEADER, COMPRESSION none",
    "csv": "FORMAT csv, HEADER, COMPRESSION none",
    "parquet": "FORMAT parquet, COMPRESSION snappy",
}


def write_version(
    folder: Path,
    prefix: str,
    report_name: str,
    version: Version,
    *,
    layout: Layout = _CUR1,
    columns: int = 125,
    seed: int = 7,
) -> Path:
    """Write one version of a month's export under `folder`, which stands for the bucket's root.

    Every layout holds the same rows in the same order. `columns` is the width of a CUR v1, 67 to
    205; other formats have fixed columns. `prefix` may be empty; slashes at its ends are dropped.
    Returns the path of the top-level manifest, which is written last and replaced in one step, as
    a reader takes a changed manifest to mean that all its files are there.
    """
    delivery = Delivery(folder, prefix.strip("/"), report_name, version, layout, columns, seed)
    for key in [*delivery.keys, *delivery.manifest_keys]:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
    with _open_bill(delivery) as bill:
        _write_files(bill, delivery)
    manifest = json.dumps(delivery.manifest(), indent=2)
    for key in delivery.manifest_keys:
        unfinished = _unfinished(folder / key)
        unfinished.write_text(manifest, encoding="utf-8")
        unfinished.replace(folder / key)
    return folder / delivery.manifest_keys[-1]


@dataclass(frozen=True)
class _Bill:
    """The charges of a version in the columns of a layout; made anew for every file."""

    connection: DuckDBPyConnection
    columns: Sql

    def write(self, rows: range, path: Path, files: Files) -> None:
        """Write rows, in order, beside their place and put them there, as a store shows whole
        objects only. Files may be written side by side."""
        unfinished = _unfinished(path)
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"COPY (SELECT {self.columns} FROM charges($first, $end) AS charge "
                "LEFT JOIN cell ON cell.position = charge.position) "
                f"TO $path ({_COPY_OPTIONS[files]})",
                {"path": str(unfinished), "first": rows.start, "end": rows.stop},
            )
        if files == "zip":
            text, unfinished = unfinished, unfinished.with_suffix(".zipped")
            _zip(text, path.stem, unfinished)
            text.unlink()
        unfinished.replace(path)


@contextmanager
def _open_bill(delivery: Delivery) -> Iterator[_Bill]:
    version, seed = delivery.version, delivery.seed
    facts = {
        "month": version.month,
        "seed": seed,
        "assembly": f"{seed}/{version.assembly_id}",
        "salt": int(sha256(f"{seed}/{version.month}".encode()).hexdigest()[:7], 16),
        "restated": version.restated,
        "before_late": version.rows - version.late_rows,
    }
    # A file has one thread and joins whose sides are not swapped: that keeps its rows in number
    # order without a sort. Without statistics no Parquet column becomes REQUIRED because a month
    # happens to fill it, so all files of a format have one schema.
    with DuckDB(threads=1).scratch() as connection:
        connection.execute(
            "SET disabled_optimizers = 'join_order,build_side_probe_side,statistics_propagation'"
        )
        connection.execute(_COMPANY)
        connection.execute(
            "CREATE TABLE kind AS FROM read_csv(?, header = true, all_varchar = true)",
            [str(_FOLDER / "kinds.csv")],
        )
        named = ", ".join(f"${fact} AS {fact}" for fact in facts)
        connection.execute(f"CREATE TABLE version AS SELECT {named}", facts)
        connection.execute(_CHARGES)
        yield _Bill(connection, _columns(connection, delivery))


def _columns(connection: DuckDBPyConnection, delivery: Delivery) -> Sql:
    """Return the SQL of all columns; those that all charges of a slot share are computed now."""
    parquet = delivery.layout.files == "parquet"
    cells, of_slot = [], []
    for column in delivery.columns:
        cell = f"{column.sql(parquet=parquet)} AS {quoted(column.name)}"
        if column.is_of_slot:
            of_slot.append(cell)
            cell = f"cell.{quoted(column.name)}"
        cells.append(cell)
    connection.execute(f"CREATE TABLE cell AS SELECT position, {', '.join(of_slot)} FROM slot")
    return Sql(", ".join(cells))


def _write_files(bill: _Bill, delivery: Delivery) -> None:
    """Write every file; files hold rows in order, in shares as equal as can be."""
    files, rows = delivery.layout.files, delivery.version.rows
    paths = [delivery.bucket / key for key in delivery.keys]
    edges = [rows * part // len(paths) for part in range(len(paths) + 1)]

    def write(part: int) -> None:
        bill.write(range(edges[part], edges[part + 1]), paths[part], files)

    # Making rows and writing a file are each the work of one thread.
    with ThreadPoolExecutor(max_workers=min(len(paths), os.cpu_count() or 1)) as pool:
        list(pool.map(write, range(len(paths))))
    for key in delivery.surplus_keys:
        if files == "parquet":
            bill.write(range(0), delivery.bucket / key, files)
        else:
            (delivery.bucket / key).write_bytes(gzip.compress(b"", mtime=0))


def _zip(text: Path, member: str, path: Path) -> None:
    """Pack a file as the only member of a zip, which has no time of day."""
    info = zipfile.ZipInfo(member)
    info.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(path, "w") as archive,
        text.open("rb") as source,
        archive.open(info, "w", force_zip64=True) as target,
    ):
        shutil.copyfileobj(source, target)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")
