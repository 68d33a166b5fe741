"""Write an example bill as AWS delivers it; the same seed gives the same rows and keys everywhere.

macros.sql    what numbers and names are drawn with
company.sql   the accounts and workloads of an invented company
aws.sql       the regions, services and commitments that it buys from AWS
kinds.csv     the kinds of charges
charges.sql   the charges of a bill, one a row
columns.py    the columns of each layout, from the tables cur1.csv and data_exports.csv
delivery.py   the keys and manifests of each layout
export.py     joins charges and columns in DuckDB, and writes the files
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.demo.delivery import BillVersion, DemoDelivery, Layout
from finops_dagster.demo.files import atomic_write
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
    folder: Path, prefix: str, export_name: str, version: BillVersion, *, layout: Layout = _CUR1
) -> Path:
    """Write one version of a month's bill under `folder`, and return its manifest's path.

    `folder` is used as the bucket; files of older versions stay, or are overwritten if the layout
    says so. Every layout has the same cost and, except FOCUS, the same rows in the same order.
    `prefix` may be empty; slashes at its ends are dropped. The manifest is written last, and
    replaced in one step.
    """
    delivery = DemoDelivery(folder, prefix.strip("/"), export_name, version, layout)
    # One thread a file, and joins whose sides DuckDB does not swap, keep the rows in order without
    # a sort. Without statistics, DuckDB writes no Parquet column as REQUIRED because a month
    # happens to fill it, so all files of a format have the same schema.
    with DuckDB(threads=1).open_in_memory() as connection:
        connection.execute(
            "SET disabled_optimizers = 'join_order,build_side_probe_side,statistics_propagation'"
        )
        _create_charges(connection, version)
        _write_files(connection, delivery)
    manifest = json.dumps(delivery.manifest(), indent=2)
    for key in delivery.manifest_keys:
        with atomic_write(folder / key) as path:
            path.write_text(manifest, encoding="utf-8")
    return folder / delivery.manifest_keys[-1]


def _create_charges(connection: DuckDBPyConnection, version: BillVersion) -> None:
    """Create the macro `charges` and the table `slot` of a version, by charges.sql."""
    parameters = {
        "month": version.first_day,
        "seed": version.seed,
        "assembly": f"{version.seed}/{version.assembly_id}",
        "salt": int(sha256(f"{version.seed}/{version.first_day}".encode()).hexdigest()[:7], 16),
        "restated": version.restated,
        "before_late": version.rows - version.late_rows,
    }
    named = ", ".join(f"${name} AS {name}" for name in parameters)
    kinds = literal(str(_FOLDER / "kinds.csv"))
    for script in ("macros", "company", "aws"):
        connection.execute((_FOLDER / f"{script}.sql").read_text())
    connection.execute(f"CREATE TABLE kind AS FROM read_csv({kinds}, all_varchar = true)")
    connection.execute(f"CREATE TABLE version AS SELECT {named}", parameters)
    connection.execute((_FOLDER / "charges.sql").read_text())


def _write_files(connection: DuckDBPyConnection, delivery: DemoDelivery) -> None:
    """Write every file: the rows in order, in parts as equal as possible."""
    files, rows, keys = delivery.layout.files, delivery.version.rows, delivery.keys
    columns = _columns(connection, delivery)
    charges = Sql("focus_charges" if delivery.layout.format.startswith("focus") else "charges")

    def write(key: str, first: int, end: int) -> None:
        with connection.cursor() as cursor, atomic_write(delivery.bucket / key) as path:
            cursor.execute(
                f"COPY (SELECT {columns} FROM {charges}($first, $end) AS charge "
                "LEFT JOIN cell ON cell.position = charge.position) "
                f"TO $path ({_COPY_OPTIONS[files]})",
                {"path": str(path), "first": first, "end": end},
            )
            if files == "zip":
                _zip(path, Path(key).stem)

    # One thread makes the rows of a file and writes them, so files are written side by side.
    edges = [rows * part // len(keys) for part in range(len(keys) + 1)]
    with ThreadPoolExecutor(max_workers=min(len(keys), os.cpu_count() or 1)) as pool:
        list(pool.map(write, keys, edges, edges[1:]))
    if delivery.layout.kind != "data export":
        return
    # If an older version had more files, a Data Export overwrites the surplus with empty ones.
    current = [delivery.bucket / key for key in keys]
    for surplus in {*current[0].parent.glob(f"*.{delivery.layout.suffix}")}.difference(current):
        if files == "parquet":
            write(str(surplus), 0, 0)
        else:
            surplus.write_bytes(gzip.compress(b"", mtime=0))


def _columns(connection: DuckDBPyConnection, delivery: DemoDelivery) -> Sql:
    """Return the SQL of all columns, and create a table of those that are the same by slot."""
    parquet = delivery.layout.files == "parquet"
    cells, slot_cells = [], []
    for header, column in delivery.columns.items():
        name, cell = quoted(header), column.sql(parquet=parquet)
        if column.is_per_slot:
            slot_cells.append(f"{cell} AS {name}")
            cell = Sql(f"cell.{name}")
        cells.append(f"{cell} AS {name}")
    connection.execute(f"CREATE TABLE cell AS SELECT position, {', '.join(slot_cells)} FROM slot")
    return Sql(", ".join(cells))


def _zip(path: Path, member: str) -> None:
    """Replace a file by a ZIP with it as the only member, and without the time of day."""
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
