"""A project whose stages run as real processes, and what must hold after a fault."""

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
from finops_dagster_tests.faults.stored_bills import (
    Bill,
    copy_of_database,
    duckdb_bill,
    parquet_bill,
    query,
    warehouse_bill,
)
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT, SETTINGS
from finops_dagster_tests.warehouses.adapters import Adapter
from finops_dagster_tests.warehouses.duckdb import DuckDB

Fault = Callable[[Path, Random], Iterator[str]]
"""Injects a fault into projects below a folder, again and again; yields a name for each of them."""

# Dagster's own command records a run before it starts it; killed there, it blocks no other run.
_ENDED = {"SUCCESS", "FAILURE", "CANCELED", "NOT_STARTED"}


@dataclass
class FaultProject:
    """A folder with settings, a source, and all that the stages write.

    `delivered` has the versions of each month, newest last, counted by Python's csv and Decimal.
    """

    folder: Path
    random: Random
    warehouse: Adapter | None = None
    """The warehouse; by default a DuckDB file in the folder."""
    layout: Layout = field(default_factory=Layout)
    months: Sequence[str] = ("2024-01", "2024-02", "2024-03")
    bucket: Path | None = None
    """The folder of the source, if it is outside."""
    put: Put | None = None
    """Uploads delivered files to the store that `location` names."""
    location: str = ""
    """The settings of the export's source, if it is not `bucket`."""
    environment: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, dict[str, Bill]] = field(default_factory=dict)
    seconds: float = 6
    """The seconds of the last run of the whole pipeline."""

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
        """The DuckDB file of the billing table."""
        return self.folder / "data/finops.duckdb"

    def deliver(self, *months: str, rows: int | None = None) -> None:
        """Deliver a further version of these months, or of all."""
        for month in months or self.months:
            versions = self.delivered.setdefault(month, {})
            version = BillVersion(
                date.fromisoformat(f"{month}-01"),
                f"v{len(versions) + 1:04}",
                rows=self.random.randint(1, 2000) if rows is None else rows,
                parts=self.random.randint(1, 3),
                restated=bool(versions),
            )
            manifest = write_version(self._bucket, "", "acme-cur", version, layout=self.layout)
            delivered_rows = all_rows(self._bucket, manifest)
            cost = sum(costs(delivered_rows, self.layout), Decimal(0))
            versions[version.assembly_id] = Bill(version.assembly_id, len(delivered_rows), cost)
            names = (Path(key).name for key in keys_of(manifest))
            self._newest_files[month] = {f"{version.assembly_id}/{name}" for name in names}
        if self.put is not None:
            upload(self._bucket, self.put)

    def deliver_some(self) -> None:
        """Deliver a further version of some of the months."""
        self.deliver(*self.random.sample(self.months, self.random.randint(1, len(self.months))))

    def start(self, *command: str, **environment: str) -> Command:
        """Start a command, by default the whole pipeline."""
        command = command or (*FINOPS, "aws", "run-pipeline")
        return Command(command, self.folder, {**self.environment, **environment})

    def start_and_interrupt(self, *command: str) -> tuple[Command, bool]:
        """Start a command, and return it after a random time; also whether it has ended already.

        The command is not interrupted here: the caller does that.
        """
        process = self.start(*command)
        return process, process.ends_within(self.random.uniform(0, self.seconds))

    def run(self, code: int = 0, **environment: str) -> str:
        """Run the whole pipeline, which must end with this exit code, and return its output."""
        began = time.monotonic()
        exit_code, output = self.start(**environment).end()
        assert exit_code == code, f"exit code {exit_code}: {output}"
        self.seconds = time.monotonic() - began
        return output

    def recover(self) -> None:
        """Run the pipeline after a fault, and assert that it repairs everything."""
        self.run()
        self.assert_newest()

    def month_command(self, month: str, *, dagster: bool = False) -> list[str]:
        """Return the command that loads a month: `finops`, or Dagster's own."""
        if not dagster:
            return [*FINOPS, "aws", "run-pipeline", "--start-date", month, "--end-date", month]
        program = str(Path(sys.executable).parent / "dagster")
        selection = ["--select", "group:acme", "--partition", month]
        return [program, "asset", "materialize", "-m", "finops_dagster.definitions", *selection]

    def assert_whole(self) -> dict[tuple[str, str], Bill | None]:
        """Assert that each output has one delivered version of each month, or never had one.

        The version must not be older than at the last call. Returns the bill, or None, by output
        and month.
        """
        bills = self._stored_bills()
        for (output, month), bill in bills.items():
            seen, title = self._seen.get((output, month), ""), f"{month} in {output}"
            if bill is None:
                assert not seen, f"{title} had {seen} and has nothing"
                continue
            assert bill == self.delivered[month].get(bill.version), f"{title}: {bill}"
            assert bill.version >= seen, f"{title} went from {seen} to {bill.version}"
            self._seen[output, month] = bill.version
        return bills

    def assert_newest(self) -> None:
        """Assert that each output has the newest version, and that nothing else is left."""
        for (output, month), bill in self.assert_whole().items():
            *_, newest = self.delivered[month].values()
            assert bill == newest, f"{month} in {output}: {bill}, but {newest} was delivered"
        files = (path for path in (self.folder / "data/parquet").rglob("*") if path.is_file())
        parquet = {path for path in files if path.suffix != ".lock"}
        bills = {self._parquet(month) for month in self.delivered}
        assert parquet == bills | {self._charges(month) for month in self.delivered}
        staged = (self.folder / "data/staging").rglob("*.csv*")  # in <month>/<version>
        newest_files = self._newest_files
        surplus = [p for p in staged if "/".join(p.parts[-2:]) not in newest_files[p.parts[-3]]]
        assert not surplus, f"left in the staging folder: {surplus}"
        with closing(sqlite3.connect(self.folder / "home/history/runs.db")) as history:
            runs = history.execute("SELECT run_id, status FROM runs").fetchall()
        unfinished = [run for run in runs if run[1] not in _ENDED]
        assert not unfinished, f"runs that never ended: {unfinished}"

    def assert_loaded_once(self) -> None:
        """Assert that no version of a month was loaded twice into the table."""
        with TemporaryDirectory() as folder:
            twice = query(
                copy_of_database(self.database, folder),
                "SELECT billing_month, manifest_id FROM finops_state.runs "
                "GROUP BY ALL HAVING count(*) > 1",
            )
        assert not twice, f"loaded twice: {twice}"

    def expect_lost(self, output: str) -> None:
        """Let `assert_whole` accept nothing or any version in an output whose data was deleted."""
        self._seen = {key: version for key, version in self._seen.items() if key[0] != output}

    def _stored_bills(self) -> dict[tuple[str, str], Bill | None]:
        bills = {}
        with TemporaryDirectory() as folder:
            database, warehouse = copy_of_database(self.database, folder), self._warehouse
            if isinstance(warehouse, DuckDB):
                warehouse = DuckDB(
                    copy_of_database(Path(warehouse.settings["warehouse_path"]), folder)
                )
            for month in self.delivered:
                bills["DuckDB", month] = duckdb_bill(database, month)
                bills["Parquet", month] = parquet_bill(self._parquet(month))
                bills["the warehouse", month] = warehouse_bill(warehouse, month)
        return bills

    def _parquet(self, month: str, folder: str = "data/parquet") -> Path:
        return self.folder / f"{folder}/acme/billing_month={month}/acme-{month}.parquet"

    def _charges(self, month: str) -> Path:
        return self._parquet(month, "data/parquet/focus")


class Command(subprocess.Popen[bytes]):
    """A process in a session of its own, together with the processes that it starts."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        # The output goes to a file: processes that Dagster leaves behind would hold a pipe open.
        self._output = TemporaryFile("w+")  # noqa: SIM115
        super().__init__(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ends_within(self, seconds: float) -> bool:
        """Return whether the process ends by itself within this time."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(seconds)
        return self.returncode is not None

    def kill(self) -> None:
        """Kill all processes of the session with -9."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def end(self) -> tuple[int, str]:
        """Wait for the end, at most 300 s; return the exit code and the end of the output.

        Kills the processes of the session that are left. Asserts that the output has no traceback.
        """
        try:
            code = self.wait(300)
        finally:
            self.kill()
        with self._output:
            self._output.seek(0)
            output = self._output.read()[-4000:]
        assert "Traceback" not in output, output
        return code, output
