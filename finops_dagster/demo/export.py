"""Write an example bill as AWS delivers it: the same rows and keys for the same seed everywhere.

kinds.csv     what an invented company buys from AWS; company.sql has what it is and where
charges.sql   its charges, one a row and as many as are wanted: the small model of a bill
columns.py    how each layout shows a charge, from the tables cur1.csv and data_exports.csv
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
from hashlib import sha256
from pathlib import Path

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.demo.delivery import BillVersion, Delivery, Layout
from finops_dagster.tables.database import DuckDB

__all__ = ["BillVersion", "Layout", "write_version"]

_FOLDER = Path(__file__).parent
_CUR1 = Layout()
_COPY_OPTIONS = {
    "gzip": "FORMAT csv, HEADER, COMPRESSION gzip",
    "zip": "FORMAT csv, HEADER, COMPRESSION none",
    "csv": "FORMAT csv, HEADER, COMPRESSION none",
    "parquet": "FORMAT parquet, COMPRESSION snappy",
}


def write_version(
    folder: Path, prefix: str, report_name: str, version: BillVersion, *, layout: Layout = _CUR1
) -> Path:
    """Write one version of a month's export under `folder`, which stands for the bucket's root.

    Every layout holds the same rows in the same order. `prefix` may be empty; slashes at its ends
    are dropped. Returns the path of the top-level manifest, which is written last and replaced in
    one step, as a reader takes a changed manifest to mean that all its files are there.
    """
    delivery = Delivery(folder, prefix.strip("/"), report_name, version, layout)
    # A file has one thread and joins whose sides are not swapped: that keeps its rows in number
    # order without a sort. Without statistics no Parquet column becomes REQUIRED because a month
    # happens to fill it, so all files of a format have one schema.
    with DuckDB(threads=1).scratch() as connection:
        connection.execute(
            "SET disabled_optimizers = 'join_order,build_side_probe_side,statistics_propagation'"
        )
        _create_charges(connection, version)
        _write_files(connection, delivery)
    manifest = json.dumps(delivery.manifest(), indent=2)
    for key in delivery.manifest_keys:
        with _put(folder / key) as path:
            path.write_text(manifest, encoding="utf-8")
    return folder / delivery.manifest_keys[-1]


def _create_charges(connection: DuckDBPyConnection, version: BillVersion) -> None:
    """Create the macro `charges` and the table `slot` of a version, as charges.sql has them."""
    facts = {
        "month": version.month,
        "seed": version.seed,
        "assembly": f"{version.seed}/{version.assembly_id}",
        "salt": int(sha256(f"{version.seed}/{version.month}".encode()).hexdigest()[:7], 16),
        "restated": version.restated,
        "before_late": version.rows - version.late_rows,
    }
    named = ", ".join(f"${fact} AS {fact}" for fact in facts)
    kinds = literal(str(_FOLDER / "kinds.csv"))
    connection.execute((_FOLDER / "company.sql").read_text())
    connection.execute(f"CREATE TABLE kind AS FROM read_csv({kinds}, all_varchar = true)")
    connection.execute(f"CREATE TABLE version AS SELECT {named}", facts)
    connection.execute((_FOLDER / "charges.sql").read_text())


def _write_files(connection: DuckDBPyConnection, delivery: Delivery) -> None:
    """Write every file; files hold rows in order, in shares as equal as can be."""
    files, rows, keys = delivery.layout.files, delivery.version.rows, delivery.keys
    columns = _columns(connection, delivery)

    def write(key: str, first: int, end: int) -> None:
        with connection.cursor() as cursor, _put(delivery.bucket / key) as path:
            cursor.execute(
                f"COPY (SELECT {columns} FROM charges($first, $end) AS charge "
                "LEFT JOIN cell ON cell.position = charge.position) "
                f"TO $path ({_COPY_OPTIONS[files]})",
                {"path": str(path), "first": first, "end": end},
            )
            if files == "zip":
                _zip(path, Path(key).stem)

    # Making rows and writing a file are each the work of one thread.
    edges = [rows * part // len(keys) for part in range(len(keys) + 1)]
    with ThreadPoolExecutor(max_workers=min(len(keys), os.cpu_count() or 1)) as pool:
        list(pool.map(write, keys, edges, edges[1:]))
    if delivery.layout.kind != "data export":
        return
    # Of an older refresh that had more files, a Data Export overwrites the rest with empty ones.
    own = [delivery.bucket / key for key in keys]
    for surplus in {*own[0].parent.glob(f"*.{delivery.layout.suffix}")}.difference(own):
        if files == "parquet":
            write(str(surplus), 0, 0)
        else:
            surplus.write_bytes(gzip.compress(b"", mtime=0))


def _columns(connection: DuckDBPyConnection, delivery: Delivery) -> Sql:
    """Return the SQL of all columns; those that all charges of a slot share are computed now."""
    parquet = delivery.layout.files == "parquet"
    cells, of_slot = [], []
    for header, column in delivery.columns.items():
        name, cell = quoted(header), column.sql(parquet=parquet)
        if column.is_of_slot:
            of_slot.append(f"{cell} AS {name}")
            cell = Sql(f"cell.{name}")
        cells.append(f"{cell} AS {name}")
    connection.execute(f"CREATE TABLE cell AS SELECT position, {', '.join(of_slot)} FROM slot")
    return Sql(", ".join(cells))


@contextmanager
def _put(path: Path) -> Iterator[Path]:
    """Have a file written beside its place and put there, as a store shows whole objects only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def _zip(path: Path, member: str) -> None:
    """Pack a file as the only member of a zip, which has no time of day, in its own place."""
    text = path.rename(path.with_suffix(".text"))
    info = zipfile.ZipInfo(member)
    info.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(path, "w") as archive,
        text.open("rb") as source,
        archive.open(info, "w", force_zip64=True) as target,
    ):
        shutil.copyfileobj(source, target)
    text.unlink()
