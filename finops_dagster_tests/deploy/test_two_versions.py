"""Two machines that load different versions of one month: nothing newer is replaced by the old."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from shutil import copy
from signal import SIGCONT, SIGSTOP
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest

from finops_dagster_tests.cur import bucket_put
from finops_dagster_tests.faults.project import Command, FaultProject
from finops_dagster_tests.faults.stored_bills import parquet_bill, warehouse_bill
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.warehouses.adapters import Adapter
from finops_dagster_tests.warehouses.postgresql import running_adapter

pytestmark = pytest.mark.thorough
MONTH = "2024-01"


@dataclass
class Machines:
    """Machines that have an export, its lake and its warehouse in common, but no disk."""

    folder: Path
    s3: S3Server
    bucket: str
    warehouse: Adapter
    bill: FaultProject

    def start(self) -> Command:
        """Start the pipeline on a new machine."""
        machine = self.folder / f"machine-{len([*self.folder.iterdir()])}"
        machine.mkdir()
        copy(self.bill.folder / "finops.toml", machine)
        environment = {**self.bill.environment, "DAGSTER_HOME": str(machine / "home")}
        return Command((*FINOPS, "aws", "run-pipeline"), machine, environment)

    def start_and_stop(self) -> Command:
        """Start a pipeline on a new machine, and stop it while it uploads the month to the lake."""
        uploads, stopped = Event(), Event()

        def stop(environ: dict[str, Any], _: object) -> Iterable[bytes] | None:
            if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".parquet"):
                uploads.set()
                stopped.wait(60)
            return None

        self.s3.fault = stop
        command = self.start()
        assert uploads.wait(300)
        os.killpg(command.pid, SIGSTOP)
        self.s3.fault = None
        stopped.set()
        return command

    @staticmethod
    def resume(command: Command) -> tuple[int, str]:
        """Let a stopped pipeline run to its end; return its exit code and output."""
        os.killpg(command.pid, SIGCONT)
        return command.end()

    def assert_stored(self, version: str) -> None:
        """Assert that lake, charges and warehouse have this version as it was delivered."""
        delivered = self.bill.delivered[MONTH][version]
        assert parquet_bill(self._file("acme", version)) == delivered
        assert self._file("focus/acme", version)
        assert warehouse_bill(self.warehouse, MONTH) == delivered
        charges = self.warehouse.query("SELECT DISTINCT x_manifest_id FROM finops.focus")
        assert charges == [(version,)]

    def _file(self, name: str, version: str) -> Path:
        """Return a copy of the month's file in the lake; pointer and footer have this version."""
        folder, path = f"lake/{name}/billing_month={MONTH}", self.folder.parent / "lake.parquet"
        client = self.s3.client()
        answer = client.get_object(Bucket=self.bucket, Key=f"{folder}/acme-{MONTH}.json")
        pointer = json.load(answer["Body"])
        assert pointer["texts"]["manifest_id"] == version
        client.download_file(self.bucket, f"{folder}/{pointer['name']}", str(path))
        assert pq.read_metadata(path).metadata[b"manifest_id"].decode() == version
        return path


@pytest.fixture
def machines(tmp_path: Path, s3: S3Server, bucket: str) -> Iterator[Machines]:
    with running_adapter() as warehouse:
        bill = FaultProject(
            tmp_path / "bill",
            Random("two versions"),
            warehouse,
            months=[MONTH],
            put=bucket_put(s3, bucket),
            location=f'source = "s3://{bucket}"\nendpoint_url = "{s3.url}"\n',
            environment={
                "FINOPS_STORAGE__PARQUET_DIR": f"s3://{bucket}/lake",
                "FINOPS_STORAGE__LAKE__ENDPOINT_URL": s3.url,
            },
        )
        (tmp_path / "machines").mkdir()
        yield Machines(tmp_path / "machines", s3, bucket, warehouse, bill)


def test_old_version_that_is_ready_last_fails_and_the_newer_one_stays(machines: Machines) -> None:
    machines.bill.deliver()
    old = machines.start_and_stop()
    machines.bill.deliver()
    assert machines.start().end()[0] == 0
    machines.assert_stored("v0002")
    code, output = machines.resume(old)
    assert code == 1
    assert "was written by another run meanwhile as version v0002, which stays" in output
    machines.assert_stored("v0002")
    assert [row[1] for row in machines.warehouse.ledger("aws_billing_data")] == ["v0002"]


def test_newer_version_that_is_ready_last_fails_and_is_loaded_by_the_next_run(
    machines: Machines,
) -> None:
    machines.bill.deliver()
    old = machines.start_and_stop()
    machines.bill.deliver()
    newer = machines.start_and_stop()
    assert machines.resume(old)[0] == 0
    machines.assert_stored("v0001")
    code, output = machines.resume(newer)
    assert code == 1
    assert "was written by another run meanwhile as version v0001, which stays" in output
    machines.assert_stored("v0001")
    assert machines.start().end()[0] == 0
    machines.assert_stored("v0002")
