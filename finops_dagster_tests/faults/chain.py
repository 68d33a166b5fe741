"""An export's chain in a folder, run as real processes, and what must hold of it after a fault."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory, TemporaryFile

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.cur import Put, upload
from finops_dagster_tests.demo.delivered import all_rows, costs, keys_of
from finops_dagster_tests.faults.places import (
    Bill,
    copied,
    in_duckdb,
    in_parquet,
    in_warehouse,
    query,
)
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT, SETTINGS
from finops_dagster_tests.warehouses.adapters import Adapter
from finops_dagster_tests.warehouses.duckdb import DuckDB

Fault = Callable[[Path, Random], Iterator[str]]
"""Injects a fault into chains in a folder, again and again, and yields each that lost nothing."""

# A run that Dagster's own command had only written down when it was killed keeps nobody's place.
_ENDED = {"SUCCESS", "FAILURE", "CANCELED", "NOT_STARTED"}


@dataclass
class Chain:
    """The folder with the settings, the source, and all that the chain makes; `delivered` has each
    version of each month, counted by Python's csv and Decimal, the newest last."""

    folder: Path
    chance: Random
    warehouse: Adapter | None = None
    """A DuckDB file in the folder where none is given."""
    layout: Layout = field(default_factory=Layout)
    months: Sequence[str] = ("2024-01", "2024-02", "2024-03")
    bucket: Path | None = None
    """Where versions are delivered, if not in the folder."""
    put: Put | None = None
    """Puts what is delivered into the store that `location` names."""
    location: str = ""
    """The keys of the export that say where it lies, if not in `bucket`."""
    environment: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, dict[str, Bill]] = field(default_factory=dict)
    seconds: float = 6
    """What the last run of the whole pipeline took."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._bucket = self.bucket or self.folder / "source"
        self._warehouse = self.warehouse or DuckDB(self.folder / "data/warehouse.duckdb")
        self._seen: dict[tuple[str, str], str] = {}
        self._newest_files: dict[str, set[str]] = {}
        location = self.location or f'source = "file://{self._bucket}"\n'
        backend, values = self._warehouse.backend, self._warehouse.settings.items()
        table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values)
        (self.folder / "finops.toml").write_text(
            SETTINGS.replace('source = "file://source"\n', location)
            + f'[database]\nbackend = "{backend}"\n[database.{backend}]\n{table}'
        )
        plain = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
        self.environment = {
            **plain,
            "FINOPS_CONFIG": "finops.toml",
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONPATH": str(ROOT),
            **self._warehouse.environment,
            **self.environment,
        }

    @property
    def database(self) -> Path:
        """The chain's own DuckDB file."""
        return self.folder / "data/finops.duckdb"

    def deliver(self, *months: str, rows: int | None = None) -> None:
        """A further version of months, restated where there was one; of all where none is named."""
        for month in months or self.months:
            versions = self.delivered.setdefault(month, {})
            version = BillVersion(
                date.fromisoformat(f"{month}-01"),
                f"v{len(versions) + 1:04}",
                rows=self.chance.randint(1, 2000) if rows is None else rows,
                parts=self.chance.randint(1, 3),
                restated=bool(versions),
            )
            manifest = write_version(self._bucket, "", "acme-cur", version, layout=self.layout)
            found = all_rows(self._bucket, manifest)
            cost = sum(costs(found, self.layout), Decimal(0))
            versions[version.assembly_id] = Bill(version.assembly_id, len(found), cost)
            names = (Path(key).name for key in keys_of(manifest))
            self._newest_files[month] = {f"{version.assembly_id}/{name}" for name in names}
        if self.put is not None:
            upload(self._bucket, self.put)

    def deliver_some(self) -> None:
        """A further version of some of the months."""
        self.deliver(*self.chance.sample(self.months, self.chance.randint(1, len(self.months))))

    def start(self, *words: str, **environment: str) -> Command:
        """A command that goes on; the whole pipeline where none is given."""
        words = words or (*FINOPS, "aws", "run-pipeline")
        return Command(words, self.folder, {**self.environment, **environment})

    def start_and_wait(self, *words: str) -> tuple[Command, bool]:
        """A command at a random moment of its run, and whether it had ended before."""
        command = self.start(*words)
        return command, command.ended_within(self.chance.uniform(0, self.seconds))

    def run(self, code: int = 0, **environment: str) -> str:
        """The whole pipeline to its end, which must be this one; returns its output."""
        began = time.monotonic()
        ended, output = self.start(**environment).end()
        assert ended == code, f"exit code {ended}: {output}"
        self.seconds = time.monotonic() - began
        return output

    def run_and_settle(self) -> None:
        """The run that makes up for a fault, after which nothing is left of it."""
        self.run()
        self.settled()

    def of_month(self, month: str, *, dagster: bool = False) -> list[str]:
        """The command that loads a month, by the project's command or by Dagster's own."""
        if not dagster:
            return [*FINOPS, "aws", "run-pipeline", "--start-date", month, "--end-date", month]
        program = str(Path(sys.executable).parent / "dagster")
        of_month = ["--select", "group:acme", "--partition", month]
        return [program, "asset", "materialize", "-m", "finops_dagster.definitions", *of_month]

    def whole(self) -> dict[tuple[str, str], Bill | None]:
        """Return what each place has of each month, which must wholly be one version that was
        delivered, as Python counts it, and none that is older than the one seen there before."""
        places = self._places()
        for (place, month), bill in places.items():
            before, where = self._seen.get((place, month), ""), f"{month} in {place}"
            if bill is None:
                assert not before, f"{where} had {before} and has nothing"
                continue
            assert bill == self.delivered[month].get(bill.version), f"{where}: {bill}"
            assert bill.version >= before, f"{where} went from {before} to {bill.version}"
            self._seen[place, month] = bill.version
        return places

    def settled(self) -> None:
        """Each month is everywhere the newest that was delivered, and nothing lies about."""
        for (place, month), bill in self.whole().items():
            *_, newest = self.delivered[month].values()
            assert bill == newest, f"{month} in {place}: {bill}, but {newest} was delivered"
        parquet = {path for path in (self.folder / "data/parquet").rglob("*") if path.is_file()}
        assert parquet == {self._parquet(month) for month in self.delivered}
        staged = (self.folder / "data/staging").rglob("*.csv*")  # in <month>/<version>
        newest_files = self._newest_files
        left = [p for p in staged if "/".join(p.parts[-2:]) not in newest_files[p.parts[-3]]]
        assert not left, f"left in the staging folder: {left}"
        with closing(sqlite3.connect(self.folder / "home/history/runs.db")) as history:
            runs = history.execute("SELECT run_id, status FROM runs").fetchall()
        unended = [run for run in runs if run[1] not in _ENDED]
        assert not unended, f"runs that never ended: {unended}"

    def loaded_once(self) -> None:
        """No version of any month was loaded twice into the table."""
        with TemporaryDirectory() as folder:
            twice = query(
                copied(self.database, folder),
                "SELECT billing_month, manifest_id FROM finops_state.runs "
                "GROUP BY ALL HAVING count(*) > 1",
            )
        assert not twice, f"loaded twice: {twice}"

    def forget(self, place: str) -> None:
        """Somebody took away what a place held."""
        self._seen = {key: version for key, version in self._seen.items() if key[0] != place}

    def _places(self) -> dict[tuple[str, str], Bill | None]:
        places = {}
        with TemporaryDirectory() as folder:
            database, warehouse = copied(self.database, folder), self._warehouse
            if isinstance(warehouse, DuckDB):
                warehouse = DuckDB(copied(Path(warehouse.settings["warehouse_path"]), folder))
            for month in self.delivered:
                places["DuckDB", month] = in_duckdb(database, month)
                places["Parquet", month] = in_parquet(self._parquet(month))
                places["the warehouse", month] = in_warehouse(warehouse, month)
        return places

    def _parquet(self, month: str) -> Path:
        return self.folder / f"data/parquet/acme/billing_month={month}/acme-{month}.parquet"


class Command(subprocess.Popen[bytes]):
    """A process in a session of its own, with all that it starts. Its output goes to a file: what
    Dagster leaves behind would hold a pipe open."""

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._output = TemporaryFile("w+")  # noqa: SIM115
        super().__init__(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended_within(self, seconds: float) -> bool:
        """Whether it ended by itself in this time."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(seconds)
        return self.returncode is not None

    def kill(self) -> None:
        """kill -9 of all processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def end(self) -> tuple[int, str]:
        """Its exit code and the end of its output, which has no traceback."""
        try:
            code = self.wait(300)
        finally:
            self.kill()
        with self._output:
            self._output.seek(0)
            output = self._output.read()[-4000:]
        assert "Traceback" not in output, output
        return code, output
