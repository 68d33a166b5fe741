"""Write an example bill as AWS delivers it: the same rows and keys for the same seed everywhere."""

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from finops_dagster.demo.bill import Bill, open_bill
from finops_dagster.demo.cur1 import Cur1
from finops_dagster.demo.data_export import DataExport
from finops_dagster.demo.layout import Files, Layout
from finops_dagster.demo.projection import Column
from finops_dagster.demo.version import Version

__all__ = ["Layout", "Version", "write_version"]

_CUR1 = Layout()
_CSV = "FORMAT csv, HEADER, COMPRESSION none"
_GZIP = "FORMAT csv, HEADER, COMPRESSION gzip"
_PARQUET = "FORMAT parquet, COMPRESSION snappy"


class Delivery(Protocol):
    """What a format must say of one version; keys are relative to the bucket's root."""

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of every file, in order."""
        ...

    @property
    def keys(self) -> list[str]:
        """The files, in the order of their rows."""
        ...

    @property
    def manifest_keys(self) -> list[str]:
        """The manifest's copies, the one that tells readers of the version last."""
        ...

    @property
    def surplus_keys(self) -> list[str]:
        """Files of an older refresh that are overwritten with empty data."""
        ...

    def manifest(self) -> dict[str, object]:
        """The manifest's fields, asked for when the files are there."""
        ...


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
    root = prefix.strip("/")
    delivery: Delivery
    if layout.format == "cur1":
        delivery = Cur1(root, report_name, version, layout, columns)
    else:
        delivery = DataExport(folder, root, report_name, version, layout, seed)
    for key in [*delivery.keys, *delivery.manifest_keys]:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
    with open_bill(version, seed) as bill:
        _write_files(bill, delivery, folder, version, layout.files)
    manifest = json.dumps(delivery.manifest(), indent=2)
    for key in delivery.manifest_keys:
        unfinished = _unfinished(folder / key)
        unfinished.write_text(manifest, encoding="utf-8")
        unfinished.replace(folder / key)
    return folder / delivery.manifest_keys[-1]


def _write_files(
    bill: Bill, delivery: Delivery, folder: Path, version: Version, files: Files
) -> None:
    """Write every file; files hold row numbers in order, in shares as equal as can be."""
    paths = [folder / key for key in delivery.keys]
    edges = [version.rows * part // len(paths) for part in range(len(paths) + 1)]
    columns = delivery.columns

    def write(part: int) -> None:
        _write_file(bill, columns, range(edges[part], edges[part + 1]), paths[part], files)

    # Making rows and writing a file are each the work of one thread.
    with ThreadPoolExecutor(max_workers=min(len(paths), os.cpu_count() or 1)) as pool:
        list(pool.map(write, range(len(paths))))
    for key in delivery.surplus_keys:
        if files == "parquet":
            _write_file(bill, columns, range(0), folder / key, files)
        else:
            (folder / key).write_bytes(gzip.compress(b"", mtime=0))


def _write_file(
    bill: Bill, columns: Sequence[Column], rows: range, path: Path, files: Files
) -> None:
    """Write one file beside its place and put it there, as a store shows whole objects only."""
    unfinished = _unfinished(path)
    if files == "parquet":
        bill.copy([column.in_parquet for column in columns], rows, unfinished, _PARQUET)
    else:
        cells = [column.in_csv for column in columns]
        bill.copy(cells, rows, unfinished, _GZIP if files == "gzip" else _CSV)
    if files == "zip":
        text, unfinished = unfinished, unfinished.with_suffix(".zipped")
        _zip(text, path.stem, unfinished)
        text.unlink()
    unfinished.replace(path)


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
