"""The lake in a folder: each version of a month replaces the file of the one before.

`<parquet_dir>/<export>/billing_month=2024-01/<export>-2024-01.parquet`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, file_literal
from finops_dagster.billing.disk import check_writable
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import file_sha256, footer_texts
from finops_dagster.lake.lake import MONTH_FOLDER, Lake, LakeFile
from finops_dagster.object_stores import ObjectInfo


@dataclass(frozen=True)
class FolderFile(LakeFile):
    """A month's file on this machine; also any other Parquet file with such a footer."""

    path: Path

    is_shared = False

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def name_in_lake(self) -> str:
        return "/".join(self.path.parts[-3:])

    def texts(self) -> dict[str, str] | None:
        return footer_texts(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def written_at(self) -> datetime:
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC).replace(tzinfo=None)

    def schema(self) -> pa.Schema:
        return pq.read_schema(self.path)

    def size(self) -> int:
        return self.path.stat().st_size

    def sha256(self) -> str:
        return file_sha256(self.path)

    def local(self) -> Path:
        return self.path

    def begin(self, run: str) -> None:
        """Do nothing: the lock of the DuckDB file keeps the runs of a machine apart."""

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            yield part
            part.replace(self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class FolderLake(Lake):
    """The lake in the folder `root`, which need not exist."""

    root: Path

    is_shared = False

    @property
    def location(self) -> str:
        return str(self.root)

    def below(self, folder: str) -> FolderLake:
        return FolderLake(self.root / folder)

    def file(self, export: str, month: BillingMonth) -> FolderFile:
        folder = self.root / export / f"{MONTH_FOLDER}{month}"
        return FolderFile(folder / f"{export}-{month}.parquet")

    def files(self, export: str) -> Mapping[BillingMonth, FolderFile]:
        files = {}
        for folder in sorted(Path(self.root, export).glob(f"{MONTH_FOLDER}*")):
            with suppress(ValueError):  # Another folder that somebody put there.
                month = BillingMonth.parse(folder.name.removeprefix(MONTH_FOLDER))
                files[month] = self.file(export, month)
        return {month: file for month, file in files.items() if file.exists()}

    def relation(self, connection: DuckDBPyConnection, files: Sequence[LakeFile]) -> Sql:  # noqa: ARG002
        paths = Sql(", ").join(file_literal(file.local()) for file in files)
        # The files have billing_month as a DATE, which the name of the folder would replace by
        # text.
        return Sql(f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)")

    def unneeded_objects(self, export: str, before: datetime) -> list[ObjectInfo]:  # noqa: ARG002
        return []  # A version replaces the file of the one before.

    def delete(self, info: ObjectInfo) -> None:
        Path(info.key).unlink()

    def check(self) -> str:
        return check_writable(self.root)

    @contextmanager
    def publishing(self, name: str) -> Iterator[Path]:
        with FolderFile(self.root / name).replacing() as part:
            yield part

    def unfinished_files(self, export: str) -> list[Path]:
        return sorted((self.root / export).rglob("*.part*"))
