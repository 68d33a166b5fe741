"""A project in a folder of its own, over a bill that is made once, and run as a person runs it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from finops_dagster.cli.history import open_history
from finops_dagster.demo.export import Version, write_version
from finops_dagster_tests.benchmarks.figures import FOLDER, ROOT, Run, apart, measured

MONTH = "2024-01"
VERSION = "20250203T000000Z"
_KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
_EXPORT = """
[[exports]]
name = "{name}"
vendor = "aws"
format = "cur1"
source = "{source}"
export_name = "bench-cur"
start_month = "2022-01"
"""
_SETTINGS = """
[storage]
staging_dir = "staging"
parquet_dir = "parquet"
[database.duckdb]
database_path = "finops.duckdb"
memory_limit = "{memory_limit}"
"""


def source(rows: int, columns: int = 154, parts: int = 4, months: Sequence[date] = ()) -> Path:
    """The folder with the bill, January 2024 where no months are named; it is made once."""
    months = months or [date(2024, 1, 1)]
    folder = FOLDER / f"source-{rows}x{columns}-{parts}-{len(months)}"
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(making, ignore_errors=True)
        for month in months:
            version = Version(month, VERSION, rows, parts)
            apart(_write, making, version, columns)
        making.rename(folder)
    return folder


def _write(folder: Path, version: Version, columns: int) -> None:
    write_version(folder, "", "bench-cur", version, columns=columns)


@dataclass(frozen=True)
class Chain:
    """An empty project over a source."""

    work: Path

    @classmethod
    def over(
        cls, source: str, *, memory_limit: str = "2GB", exports: int = 1, more: str = ""
    ) -> Chain:
        """Make it, in the place of the one before; `more` are keys of its export."""
        work = FOLDER / "work"
        shutil.rmtree(work, ignore_errors=True)
        chain = cls(work)
        chain.home.mkdir(parents=True)
        shutil.copy(ROOT / "dagster.yaml", chain.home)
        names = ["bench", *(f"bench_{number}" for number in range(1, exports))]
        tables = "".join(_EXPORT.format(name=name, source=source) + more for name in names)
        (work / "finops.toml").write_text(_SETTINGS.format(memory_limit=memory_limit) + tables)
        os.environ |= {"DAGSTER_HOME": str(chain.home), **_KEYS}
        return chain

    def materialize(self, module: str = "finops_dagster.definitions") -> Run:
        """`dagster asset materialize` of the month, the whole chain."""
        dagster = str(Path(sys.executable).parent / "dagster")
        chosen = ["--select", "group:bench", "--partition", MONTH]
        return self.run([dagster, "asset", "materialize", "-m", module, *chosen])

    def finops(self, *words: str) -> Run:
        """A `finops` command."""
        return self.run([sys.executable, "-m", "finops_dagster.cli", *words])

    def python(self, code: str, *words: str) -> Run:
        """A Python program."""
        return self.run([sys.executable, "-c", code, *words])

    def run(self, command: Sequence[str]) -> Run:
        """Any command in the project's folder and environment."""
        return measured(command, self.work, FINOPS_CONFIG="finops.toml", PYTHONPATH=str(ROOT))

    def stage_seconds(self) -> dict[str, float]:
        """What each stage said of its time when it last had the month."""
        with open_history() as history:
            stages = history.materializations("bench", [MONTH])
        return {
            stage: months[MONTH].metadata.get("seconds", 0)
            for stage, months in stages.items()
            if months
        }

    @property
    def home(self) -> Path:
        """The DAGSTER_HOME."""
        return self.work / "dagster"
