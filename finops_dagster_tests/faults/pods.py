"""Months that are loaded by pods, which are killed, doubled and cut off from everything they need.

Dagster runs as deploy/dagster.yaml says it. A pod is a process with a disk of its own, which ends
with it; a killed pod leaves nothing but the lake and Dagster's history.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP
from threading import Event, Thread
from typing import Any

import dagster as dg
import kubernetes_validate
import psycopg
import pyarrow.parquet as pq

from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.cur import bucket_put, upload
from finops_dagster_tests.deploy.cluster import Deployment, attempts, deployed
from finops_dagster_tests.faults.disk import FaultUnavailable
from finops_dagster_tests.faults.project import FaultProject
from finops_dagster_tests.faults.s3 import TRANSIENT, Request
from finops_dagster_tests.faults.stored_bills import parquet_bill
from finops_dagster_tests.servers.kubernetes import can_isolate
from finops_dagster_tests.servers.s3 import S3Server

STAGES = ("manifest", "staged_files", "billing_table", "parquet", "focus")
_LAKE = "acme-lake"
_FAULTY = 0.02
"""The share of requests that the store fails to answer."""
_SETTINGS = """
[storage]
staging_dir = "{folder}/pod/scratch/staging"
parquet_dir = "s3://{lake}/finops"

[storage.lake]
endpoint_url = "{url}"

[database.duckdb]
database_path = "{folder}/pod/scratch/{{month}}.duckdb"

[[run_sizes]]
up_to = "1MB"
[run_sizes.tags]
"dagster-k8s/config" = {{container_config = {{resources = {{requests = {{memory = "1Gi"}}}}}}}}

[[run_sizes]]
[run_sizes.tags]
"dagster-k8s/config" = {{container_config = {{resources = {{requests = {{memory = "7Gi"}}}}}}}}
"""
_EXPORT = """
[[exports]]
name = "{name}"
vendor = "aws"
format = "cur1"
source = "s3://{name}"
endpoint_url = "{url}"
export_name = "acme-cur"
start_month = "{months[0]}"
end_month = "{months[1]}"
sensor = true
"""
_UPLOAD = re.compile(
    rf"/{_LAKE}/finops/(?P<export>[^/]+)/billing_month=(?P<month>[^/]+)/.*\.parquet"
)
Month = tuple[str, str]
"""An export and a month."""
_STARTED = """
SELECT step.id, step.run_id, step.step_key, run.partition
FROM event_logs step JOIN runs run ON run.run_id = step.run_id
WHERE step.dagster_event_type = 'STEP_START' AND step.id > %s ORDER BY step.id
"""
_FAILURES = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
_DONE = """
SELECT 1 FROM event_logs
WHERE run_id = %s AND step_key = %s AND dagster_event_type = 'ASSET_MATERIALIZATION'
"""
_FAILED_STEPS = "SELECT run_id FROM event_logs WHERE dagster_event_type = 'STEP_FAILURE'"
_RUNS = """
SELECT tag.value, run.partition, run.run_id, run.status, run.start_time, run.end_time
FROM runs run JOIN run_tags tag ON tag.run_id = run.run_id AND tag.key = 'finops/export'
ORDER BY run.id
"""


def pods(folder: Path, random: Random) -> Iterator[str]:
    """Load 36 months of three exports by two pods at a time, then by four, under every fault.

    Each month ends in the lake as it was delivered, and is written again only if its pod was killed
    or doubled. Unlike other faults, this one ends by itself.
    """
    for number in (2, 4):
        yield from loaded_by_pods(folder / f"faults-{number}", random, (3, 36), number)


def loaded_by_pods(
    folder: Path, random: Random, size: tuple[int, int], number: int
) -> Iterator[str]:
    """Load months by `number` pods at a time under every fault; yield a line for each result.

    `size` is the number of exports, and of months of each. In each stage a pod is killed. As
    Kubernetes' API does not answer for a time, two pods load one month. PostgreSQL is restarted,
    and the store fails now and then. Raises AssertionError if a month is not as it was delivered.
    """
    with _deployed(folder, random, size, number) as scenario:
        yield from scenario.run()
        exports, months = size
        yield f"{exports} x {months} months, {number} at a time: {scenario.seconds():.0f} s"


@contextmanager
def _deployed(
    folder: Path, random: Random, size: tuple[int, int], number: int
) -> Iterator[Scenario]:
    """Deliver the bills, and deploy Dagster until the block ends."""
    if not can_isolate():
        raise FaultUnavailable("a pod needs unshare, as root or with namespaces")
    folder.mkdir(parents=True)
    with closing(S3Server()) as s3:
        s3.reset()
        bills = deliver(folder, random, size, s3)
        settings = _SETTINGS.format(folder=folder, lake=_LAKE, url=s3.url)
        for name, project in bills.items():
            months = min(project.months), max(project.months)
            settings += _EXPORT.format(name=name, url=s3.url, months=months)
        with deployed(folder, settings, s3, pods=number) as deployment:
            yield Scenario(deployment, s3, bills, random, number)


def deliver(
    folder: Path, random: Random, size: tuple[int, int], s3: S3Server
) -> dict[str, FaultProject]:
    """Deliver small bills to a bucket for each export; return what was delivered, by export."""
    exports, count = size
    month, months = BillingMonth.parse("2022-01"), list[str]()
    for _ in range(count):
        months.append(str(month))
        month = month.next
    bills = {}
    for name in [f"acme-{number}" for number in range(1, exports + 1)]:
        s3.client().create_bucket(Bucket=name)
        source = folder / "sources" / name
        bills[name] = FaultProject(folder / "bills" / name, random, months=months, bucket=source)
        for of_month in months:
            bills[name].deliver(of_month, rows=random.randint(1, 300))
        upload(source, bucket_put(s3, name))
    s3.client().create_bucket(Bucket=_LAKE)
    return bills


@dataclass
class HeldUpload:
    """Delays the uploads of one month to the lake until `released` is set.

    The month is that of the first upload after `is_awaited` was set; before, `month` is empty and
    no upload is delayed. `paths` are those of the delayed files.
    """

    is_awaited: bool = False
    month: Month = ("", "")
    paths: set[str] = field(default_factory=set)
    released: Event = field(default_factory=Event)

    def hold(self, environ: dict[str, Any]) -> None:
        """Wait until `released` is set, at most 300 s, if the request is an upload of the month."""
        path = environ["PATH_INFO"]
        upload = _UPLOAD.fullmatch(path) if environ["REQUEST_METHOD"] == "PUT" else None
        if not self.is_awaited or upload is None:
            return
        if not self.paths:
            self.month = upload["export"], upload["month"]
        if upload.groups() == self.month:
            self.paths.add(path)
            self.released.wait(300)


@dataclass
class Scenario:
    """The faults of one deployment, and what must hold in the end."""

    deployment: Deployment
    s3: S3Server
    bills: dict[str, FaultProject]
    random: Random
    pods: int
    killed: dict[Month, str] = field(default_factory=dict)
    """The stage in which the pod of a month was killed."""
    upload: HeldUpload = field(default_factory=HeldUpload)
    at_restart: set[Month] = field(default_factory=set)
    """The months whose pods were at work while PostgreSQL was restarted."""
    launched_again: set[str] = field(default_factory=set)
    """The failed runs whose months were launched again."""
    _is_store_faulty: bool = False
    _finished: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.months = [(name, m) for name, bill in self.bills.items() for m in bill.months]

    def run(self) -> Iterator[str]:
        """Inject the faults, and yield a line for each that was survived and each verified fact.

        Raises AssertionError for what is wrong.
        """
        self.s3.fault = self._answer
        killer = Thread(target=self._kill, daemon=True)
        killer.start()
        try:
            self._wait(lambda: len(self._runs()) >= len(self.months))
            self._is_store_faulty = True
            self._wait(lambda: len(self._complete()) >= len(self.months) // 2)
            self.at_restart = self._at_work()
            self.deployment.postgresql.restart()
            self.at_restart |= self._at_work()
            # By then, at least one month has no pod yet.
            self._wait(lambda: len(self._complete()) >= len(self.months) - self.pods - 1)
            self.upload.is_awaited = True
            self._wait(lambda: self._is_left({self.upload.month}))
            again = f", {len(self.launched_again)} launched again" if self.launched_again else ""
            yield f"PostgreSQL restarted while pods worked{again}"
            self._double()
            yield "Kubernetes' API did not answer: two pods worked at one month"
            self.wait_for_all()
        finally:
            self._finished.set()
            self.upload.released.set()
            killer.join()
            self.s3.fault = None
        assert {*self.killed.values()} == {*STAGES}, self.killed
        yield from (f"killed in {stage}" for stage in self.killed.values())
        yield from self._assert_held({*self.killed, self.upload.month} | self.at_restart)

    def wait_for_all(self) -> None:
        """Wait until all months are complete, and no pod works at one."""
        self._wait(lambda: self._is_left(set()) and not self._working())

    def seconds(self) -> float:
        """Return the seconds from the start of the first run to the end of the last."""
        with self._history() as history:
            (row,) = history.execute(f"SELECT max(end_time) - min(start_time) FROM ({_RUNS}) runs")
        return float(row[0])

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes] | None:
        """Hold the uploads of one month, and fail to answer some other requests."""
        self.upload.hold(environ)
        if not self._is_store_faulty or self.random.random() > _FAULTY:
            return None
        project = next(iter(self.bills.values()))
        return self.random.choice(TRANSIENT)(Request(self.s3, project, environ, start))

    def _kill(self) -> None:
        """Kill one pod in each stage, of different months; each is stopped first, to be sure."""
        waiting, last = [*STAGES], 0
        while waiting and not self._finished.wait(0.02):
            with suppress(psycopg.Error, ProcessLookupError), self._history() as history:
                for number, run, step, month in history.execute(_STARTED, [last]).fetchall():
                    last = number
                    export, _, stage = str(step).rpartition("__")
                    of_month = export.replace("_", "-"), month
                    if stage not in waiting or of_month in self.killed:
                        continue
                    self.deployment.cluster.signal(run, SIGSTOP)
                    if history.execute(_DONE, [run, step]).fetchall():
                        self.deployment.cluster.signal(run, SIGCONT)
                        continue
                    self.deployment.cluster.signal(run, SIGKILL)
                    waiting.remove(stage)
                    self.killed[of_month] = stage

    def _double(self) -> None:
        """Let Dagster take a month's pod for lost, so that it starts another one beside it."""
        cut_short = 200, {"content-length": "1000"}, b""
        failures = self._statuses(self.upload.month).count("FAILURE")
        self.deployment.api.fault = lambda *_: cut_short
        self._wait(lambda: self._statuses(self.upload.month).count("FAILURE") > failures)
        self.deployment.api.fault = None
        self._wait(lambda: len(self.upload.paths) > 1)
        assert self._working() >= 2
        self.upload.released.set()

    def _assert_held(self, written_again: set[Month]) -> Iterator[str]:
        """Yield what holds of all months; `written_again` had more than one pod, or might have."""
        for export, month in self.months:
            *_, delivered = self.bills[export].delivered[month].values()
            stored = parquet_bill(self._download(self._file(export, month)))
            assert stored == delivered, f"{export} {month}: {stored}, but {delivered}"
            charges = pq.read_table(self._download(self._file(f"focus/{export}", month)))
            footer = charges.schema.metadata
            assert footer[b"manifest_id"].decode() == delivered.version
            cost = sum(charges["BilledCost"].to_pylist(), Decimal(0))
            assert Decimal(footer[b"total_cost"].decode()) == cost
        yield f"{len(self.months)} months as delivered, to the last digit"
        runs = Counter((export, month) for export, month, _, _ in self._runs())
        surplus = {month for month, count in runs.items() if count > 1} - written_again
        assert not surplus, f"more than one run of {surplus}"
        outcomes = self._outcomes()
        for outcome in ("loaded", "exported", "derived"):
            for month in {*self.months} - written_again:
                assert outcomes[*month, outcome] == 1, f"{month}: {outcomes}"
        yield f"{len(self.months) - len(written_again)} months loaded once, by one pod"
        self._assert_jobs()
        assert f"/{_LAKE}/{self._file(*self.upload.month)}" in self.upload.paths
        runs_of_month = ", ".join(self._statuses(self.upload.month)).lower()
        yield f"one file of two pods is the month's; its runs: {runs_of_month}"
        rows = self.deployment.json("state", "list")
        shown = {(row["export"], row["month"]): row["last_run"] for row in rows}
        assert shown == dict.fromkeys(self.months, "success")
        yield "no month is shown as failed"

    def _outcomes(self) -> Counter[tuple[str, str, str]]:
        """Count what the stages of each export and month did, by Dagster's history."""
        outcomes: Counter[tuple[str, str, str]] = Counter()
        with self.deployment.instance() as instance:
            for export in self.bills:
                for stage in STAGES:
                    key = dg.AssetKey([export, stage])
                    for record in instance.fetch_materializations(key, limit=5000).records:
                        event = record.asset_materialization
                        assert event is not None
                        outcome = str(event.metadata["outcome"].value)
                        outcomes[export, str(record.partition_key), outcome] += 1
        return outcomes

    def _assert_jobs(self) -> None:
        """Assert that the jobs are valid, without secrets, and of the size of unknown months."""
        jobs = self.deployment.cluster.objects("apis/batch/v1/jobs")
        assert "hunter2" not in json.dumps(jobs)
        for job in jobs:
            kubernetes_validate.validate(job, "1.34", strict=True)
        containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
        sizes = [container["resources"]["requests"]["memory"] for container in containers]
        assert sizes.count("7Gi") >= len(self.months)

    def _file(self, export: str, month: str) -> str:
        """Return the key of the month's file, which its pointer names."""
        folder = f"finops/{export}/billing_month={month}"
        key = f"{folder}/{export.rpartition('/')[2]}-{month}.json"
        pointer = self.s3.client().get_object(Bucket=_LAKE, Key=key)
        return f"{folder}/{json.load(pointer['Body'])['name']}"

    def _download(self, key: str) -> Path:
        path = self.deployment.folder / "lake.parquet"
        self.s3.client().download_file(_LAKE, key, str(path))
        return path

    def _complete(self) -> set[Month]:
        """Return the months that have charges in the lake."""
        pages = self.s3.client().get_paginator("list_objects_v2")
        listed = pages.paginate(Bucket=_LAKE, Prefix="finops/focus/")
        keys = [item["Key"] for page in listed for item in page.get("Contents", [])]
        parts = [key.split("/") for key in keys if key.endswith(".json")]
        return {(export, month.partition("=")[2]) for _, _, export, month, _ in parts}

    def _history(self) -> psycopg.Connection:
        return self.deployment.postgresql.connect()

    def _runs(self) -> list[tuple[str, str, str, str]]:
        """Return export, month, id and status of all runs of months."""
        with self._history() as history:
            return [row[:4] for row in history.execute(_RUNS).fetchall()]

    def _statuses(self, month: Month) -> list[str]:
        return [status for *of_month, _, status in self._runs() if tuple(of_month) == month]

    def _in_progress(self) -> set[Month]:
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        return {(export, month) for export, month, _, status in self._runs() if status not in ended}

    def _at_work(self) -> set[Month]:
        """Return the months in progress whose pod was started."""
        waiting = {"QUEUED", "NOT_STARTED"}
        queued = {(export, month) for export, month, _, status in self._runs() if status in waiting}
        return self._in_progress() - queued

    def _is_left(self, months: set[Month]) -> bool:
        """Return whether runs of these months are in progress, and all others are complete."""
        return self._in_progress() == months and self._complete() == {*self.months} - months

    def _working(self) -> int:
        """Return how many pods of the month of the held uploads work."""
        runs = [run for *month, run, _ in self._runs() if tuple(month) == self.upload.month]
        pods = [pod for run in runs for pod in self.deployment.cluster.pods(run)]
        return sum(pod["status"]["phase"] == "Running" for pod in pods)

    def _wait(self, condition: Callable[[], bool]) -> None:
        try:
            for attempt in attempts(60 + 30 * len(self.months)):
                with attempt:
                    self._launch_again()
                    assert condition()
        except AssertionError as error:
            raise AssertionError(self._runs_and_failures()) from error

    def _launch_again(self) -> None:
        """Launch the months whose step was failed by PostgreSQL's restart, as a person would.

        Between two stages Dagster reads its history itself, once. Its retries are for lost pods
        alone, and the export's sensor would launch the month again after ten minutes.
        """
        with self._history() as history:
            failed_runs = {run for (run,) in history.execute(_FAILED_STEPS)}
        for export, month, run, status in self._runs():
            has_failed = run in failed_runs - self.launched_again and status == "FAILURE"
            if has_failed and (export, month) in self.at_restart:
                self.launched_again.add(run)
                self.deployment.launch(export, month)

    def _runs_and_failures(self) -> str:
        """Return all runs, a line each, and what their failures say."""
        lines = [" ".join(run) for run in self._runs()]
        with self.deployment.instance() as instance:
            for _, _, run, status in self._runs():
                if status == "FAILURE":
                    for entry in instance.all_logs(run, of_type=_FAILURES):
                        details = entry.get_dagster_event().event_specific_data
                        lines.append(f"{run}: {entry.user_message} {details}")
        return "\n".join(lines)
