"""The lake in a folder: each version of a month replaces the file of the one before.

`<parquet_dir>/<export>/billing_month=2024-01/<export>-2024-01.parquet`

Versions that are kept are in the folder `versions` beside it, where `*/*.parquet` does not find
them: each has a name of its own, `<export>-2024-01-<12 hex digits>.parquet`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, file_literal
from finops_dagster.billing.disk import check_writable
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import file_sha256, footer_texts
from finops_dagster.lake.history import replaced_files
from finops_dagster.lake.lake import (
    MONTH_FOLDER,
    REPLACES,
    THIS_MACHINE,
    Lake,
    LakeFile,
    NewFile,
    unique_file_name,
)
from finops_dagster.lake.relations import parquet_relation
from finops_dagster.locks import waiting_lock
from finops_dagster.object_stores import ObjectInfo

if TYPE_CHECKING:
    import pyarrow as pa

_VERSIONS = "versions"


@dataclass(frozen=True)
class FolderFile(LakeFile):
    """A month's file on this machine; also any other Parquet file with such a footer."""

    path: Path
    keep_versions: int = 0

    is_in_store = False

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def name_in_lake(self) -> str:
        return "/".join(self.path.parts[-3:])

    def snapshot(self) -> Self:
        return self

    def footer_texts(self) -> dict[str, str] | None:
        return footer_texts(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def written_at(self) -> datetime:
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC).replace(tzinfo=None)

    def schema(self) -> pa.Schema:
        import pyarrow.parquet as pq

        return pq.read_schema(self.path)

    def size(self) -> int:
        return self.path.stat().st_size

    def sha256(self) -> str:
        return file_sha256(self.path)

    def local_path(self) -> Path:
        return self.path

    @property
    def _versions(self) -> Path:
        folder = self.path.parent
        return folder if folder.name == _VERSIONS else folder / _VERSIONS

    def keep_version(self) -> str:
        if not self.path.exists():
            return ""
        # A file without a footer is damaged, and no version.
        is_kept = self.keep_versions and self.footer_texts() is not None
        return self._second_name().name if is_kept else self.path.name

    def create_permanent_url(self) -> str:
        return f"file://{self._second_name().absolute()}"

    def _second_name(self) -> Path:
        """Return the path of the same bytes in the folder of versions; create it if necessary."""
        for path in self._versions.glob("*.parquet"):
            if _is_same(path, self.path):
                return path
        path = self._versions / unique_file_name(self.path.stem)
        path.parent.mkdir(exist_ok=True)
        try:
            path.hardlink_to(self.path)
        except OSError:  # The file system has no hard links.
            part = path.with_name(f"{path.name}.part")
            shutil.copy2(self.path, part)
            part.replace(path)
        return path

    def replaced_file(self) -> Self | None:
        name = (self.footer_texts() or {}).get(REPLACES)
        path = self._versions / name if name else None
        return replace(self, path=path) if path and path.exists() else None

    def verified_store_uri(self) -> None:
        """Return None: only this machine has the file."""

    def relation_and_location(
        self,
        connection: DuckDBPyConnection,  # noqa: ARG002
        columns: Sequence[str] | None = None,  # noqa: ARG002
    ) -> tuple[Sql, str]:
        return parquet_relation(self.path), THIS_MACHINE

    def record_version_at_start(self, run: str) -> None:
        """Do nothing: the lock of the DuckDB file keeps the runs of a machine apart."""

    def unneeded_versions(self) -> list[Path]:
        """Return the files in the folder `versions` that need not be kept, sorted by path.

        Kept are the month's file and the last `keep_versions` that it has replaced. Empty if the
        month's file is missing or damaged.
        """
        if self.footer_texts() is None:
            return []
        kept = {self.path, *(f.path for f in replaced_files(self, self.keep_versions))}
        return [
            path
            for path in sorted(self._versions.glob("*.parquet"))
            if not any(_is_same(path, other) for other in kept)
        ]

    @contextmanager
    def replacing(self) -> Iterator[NewFile]:
        part = self.path.with_name(f"{self.path.name}.part")
        # A person and a sensor may derive the charges of one month at the same time.
        lock = self.path.with_name(f".{self.path.name}.lock")
        with waiting_lock(lock, f"writing {self.path}"):
            try:
                yield NewFile(part)
                part.replace(self.path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise


@dataclass(frozen=True)
class FolderLake(Lake):
    """The lake in the folder `root`, which need not exist."""

    root: Path
    keep_versions: int = 0

    is_in_store = False

    @property
    def location(self) -> str:
        return str(self.root)

    def in_folder(self, folder: str) -> Self:
        return replace(self, root=self.root / folder)

    def file(self, export: str, month: BillingMonth) -> FolderFile:
        folder = self.root / export / f"{MONTH_FOLDER}{month}"
        return FolderFile(folder / f"{export}-{month}.parquet", self.keep_versions)

    def files(self, export: str) -> Mapping[BillingMonth, FolderFile]:
        files = {}
        for folder in sorted(Path(self.root, export).glob(f"{MONTH_FOLDER}*")):
            with suppress(ValueError):  # Another folder that somebody put there.
                month = BillingMonth.parse(folder.name.removeprefix(MONTH_FOLDER))
                files[month] = self.file(export, month)
        return {month: file for month, file in files.items() if file.exists()}

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:  # noqa: ARG002
        paths = Sql(", ").join(file_literal(file.local_path()) for file in files)
        # The files have billing_month as a DATE, which the name of the folder would replace by
        # text.
        return Sql(f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)")

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:  # noqa: ARG002
        return [
            _object_info(path)
            for file in self.files(export).values()
            for path in file.unneeded_versions()
        ]

    def delete_object(self, info: ObjectInfo) -> None:
        Path(info.key).unlink()

    def check_access(self) -> str:
        return check_writable(self.root)

    @contextmanager
    def writing_file(self, name: str) -> Iterator[Path]:
        with FolderFile(self.root / name).replacing() as new:
            yield new.path

    def unfinished_files(self, export: str) -> list[Path]:
        return sorted((self.root / export).rglob("*.part*"))


def _is_same(path: Path, other: Path) -> bool:
    """Return whether two paths are of one file, or one is a copy of the other."""
    if path.samefile(other):
        return True
    copy, original = path.stat(), other.stat()
    return (copy.st_size, copy.st_mtime_ns) == (original.st_size, original.st_mtime_ns)


def _object_info(path: Path) -> ObjectInfo:
    status = path.stat()
    written_at = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(str(path), str(path), status.st_size, "", written_at)
