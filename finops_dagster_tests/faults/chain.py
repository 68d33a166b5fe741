"""An export's chain in a folder, run as real processes, and every version that was delivered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from random import Random
from tempfile import mkstemp

from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster_tests.demo.delivered import all_rows, costs
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT
from finops_dagster_tests.warehouses.adapters import Adapter

TABLE = "aws_billing_data"
_SETTINGS = """
[[exports]]
name = "acme"
vendor = "aws"
export_name = "acme-cur"
start_month = "2024-01"
table = "aws_billing_data"
"""


@dataclass(frozen=True)
class Bill:
    """A version of a month as its files have it, or as a place holds it."""

    version: str
    rows: int
    cost: Decimal


@dataclass
class Chain:
    """The folder with the settings, the source, and all that the chain makes; `delivered` has each
    version of each month, counted by Python's csv and Decimal, the newest last."""

    folder: Path
    chance: Random
    warehouse: Adapter | None = None
    layout: Layout = field(default_factory=Layout)
    months: Sequence[str] = ("2024-01", "2024-02", "2024-03")
    source: Path | None = None
    settings: str = ""
    """Where the export lies, if not in the folder `source`."""
    delivered: dict[str, dict[str, Bill]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 6
    """What the last run of the whole pipeline took."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bucket = self.source or self.folder / "source"
        settings = _SETTINGS + (self.settings or f'source = "file://{self.bucket}"')
        if self.warehouse is not None:
            backend, values = self.warehouse.backend, self.warehouse.settings.items()
            settings += f'\n[database]\nbackend = "{backend}"\n[database.{backend}]\n' + "".join(
                f"{name} = {json.dumps(value)}\n" for name, value in values
            )
            self.environment |= self.warehouse.environment
        (self.folder / "finops.toml").write_text(settings)

    @property
    def database(self) -> Path:
        """The chain's own DuckDB file."""
        return self.folder / "data/finops.duckdb"

    def parquet(self, month: str) -> Path:
        """The month's file of the lake."""
        return self.folder / f"data/parquet/acme/billing_month={month}/acme-{month}.parquet"

    def newest(self, month: str) -> Bill | None:
        """The version that the vendor delivered last."""
        return next(reversed(self.delivered.get(month, {}).values()), None)

    def deliver(self, *months: str, rows: int | None = None) -> None:
        """A further version of months, restated where there was one; of all where none is named."""
        for month in months or self.months:
            versions = self.delivered.setdefault(month, {})
            version = Version(
                date.fromisoformat(f"{month}-01"),
                f"v{len(versions) + 1:04}",
                rows=self.chance.randint(1, 2000) if rows is None else rows,
                parts=self.chance.randint(1, 3),
                restated=bool(versions),
            )
            manifest = write_version(self.bucket, "", "acme-cur", version, layout=self.layout)
            found = all_rows(self.bucket, manifest)
            cost = sum(costs(found, self.layout), Decimal(0))
            versions[version.assembly_id] = Bill(version.assembly_id, len(found), cost)

    def start(self, *words: str, **environment: str) -> Command:
        """A command that goes on; the whole pipeline where none is given."""
        plain = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        plain |= {
            "FINOPS_CONFIG": "finops.toml",
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONPATH": str(ROOT),
        }
        everything = {**plain, **self.environment, **environment}
        return Command(words or (*FINOPS, "aws", "run-pipeline"), self.folder, everything)

    def run(self, *words: str, code: int = 0, **environment: str) -> str:
        """The same to its end, which must be this one; what it said."""
        began = time.monotonic()
        ended, said = self.start(*words, **environment).end()
        assert ended == code, f"exit code {ended}: {said}"
        if not words:
            self.seconds = time.monotonic() - began
        return said

    def of_month(self, month: str, *, dagster: bool = False) -> list[str]:
        """The command that loads a month, by the project's command or by Dagster's own."""
        if not dagster:
            return [*FINOPS, "aws", "run-pipeline", "--start-date", month, "--end-date", month]
        program = str(Path(sys.executable).parent / "dagster")
        of_month = ["--select", "group:acme", "--partition", month]
        return [program, "asset", "materialize", "-m", "finops_dagster.definitions", *of_month]


class Command:
    """A process in a session of its own, with all that it starts. What it says goes to a file: what
    Dagster leaves behind would hold a pipe open."""

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        said, self._said = mkstemp(prefix="said-", suffix=".txt")
        with os.fdopen(said, "w") as file:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended_within(self, seconds: float) -> bool:
        """Whether it ended by itself in this time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def kill(self) -> None:
        """kill -9 of all processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> tuple[int, str]:
        """Its exit code and the end of what it said, which has no traceback."""
        try:
            code = self._process.wait(300)
        finally:
            self.kill()
        said = Path(self._said).read_text()[-4000:]
        Path(self._said).unlink()
        assert "Traceback" not in said, said
        return code, said
