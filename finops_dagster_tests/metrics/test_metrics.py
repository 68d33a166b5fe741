"""What the metrics say of months and runs, and the ways in which they are read."""

import signal
from contextlib import nullcontext
from pathlib import Path
from urllib.request import urlopen

import dagster as dg
import duckdb
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster.pipeline.history import History
from finops_dagster.pipeline.metrics import Metrics
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.prometheus import free_port

MONTHS = "[metrics]\nmonths = 1000\n"
Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Return each sample of a text by its name and the values of its labels, in their order."""
    return {
        (sample.name.removeprefix("finops_"), *dict(sorted(sample.labels.items())).values()): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(project: Project) -> Samples:
    metrics = Metrics(project.settings(), pytest.fail)
    metrics.open_history = lambda: nullcontext(History(project.instance))
    return samples(metrics.prometheus_text())


def state(project: Project, month: str = "2024-01") -> str:
    """Return the state of a month, which has exactly one."""
    found = read(project)
    states = {
        key[3]: value for key, value in found.items() if key[:3] == ("month_state", "acme", month)
    }
    assert sum(states.values()) == 1
    return max(states, key=lambda name: states[name])


def run_of(project: Project, month: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    tags = {"finops/export": "acme", "dagster/partition": month}
    run = dg.DagsterRun("acme_month", status=status, tags=tags)
    project.instance.add_run(run)
    return run


@pytest.fixture
def loaded(project: Project) -> Project:
    project.export |= {"start_month": "2024-01", "end_month": "2024-02"}
    project.deliver("1.5", "2")
    project.load()
    return project


def test_a_loaded_month_has_its_figures(loaded: Project) -> None:
    found = read(loaded)
    month = ("acme", "2024-01")
    assert found["month_rows", *month] == 2
    assert found["month_cost", "(none)", *month] == 3.5
    assert found["month_restatements_total", *month] == 0
    assert found["month_end_timestamp_seconds", *month] == 1706745600
    assert found["month_source_bytes", *month] > 0
    assert found["month_load_duration_seconds", *month] > 0
    times = [found[f"month_{name}_timestamp_seconds", *month] for name in ("delivered", "loaded")]
    assert times[0] <= times[1] <= found["metrics_timestamp_seconds",]
    assert ("month_rows", "acme", "2024-02") not in found
    assert found["stage_duration_seconds", "acme", "parquet"] > 0
    sources = ("lake", "ledger", "budgets", "dagster")
    assert [found["metrics_source_up", source] for source in sources] == [1, 1, 1, 1]
    assert not any(key[0] == "export_delivered_timestamp_seconds" for key in found), "it is over"

    loaded.deliver("5", version="v2")
    loaded.load()
    found = read(loaded)
    assert found["month_restatements_total", *month] == 1
    assert found["month_restated_cost", "(none)", *month] == 1.5
    assert found["month_restated_timestamp_seconds", *month] >= times[1]


def test_an_export_that_goes_on_has_the_time_of_its_newest_delivery(loaded: Project) -> None:
    loaded.export["end_month"] = None
    loaded.metrics = {"months": 1000}
    found = read(loaded)
    newest = found["export_delivered_timestamp_seconds", "acme"]
    assert newest == found["month_delivered_timestamp_seconds", "acme", "2024-01"]


def test_only_the_newest_months_have_metrics(loaded: Project) -> None:
    loaded.metrics = {"months": 1}
    assert not any("2024-01" in key for key in read(loaded))


def test_the_state_of_a_month_follows_what_it_holds(loaded: Project) -> None:
    assert state(loaded) == "complete"
    loaded.deliver("4", version="v2")
    loaded.load(stages=["manifest"])
    assert state(loaded) == "stale"
    run = run_of(loaded, "2024-01", dg.DagsterRunStatus.STARTED)
    assert state(loaded) == "in_progress"
    assert read(loaded)["runs_in_progress", "acme", "started"] == 1
    loaded.instance.report_run_failed(run)
    assert state(loaded) == "failed"
    assert read(loaded)["failed_runs", "the process was lost", "acme", "(none)"] == 1
    loaded.load()
    assert state(loaded) == "complete"


def report_success(loaded: Project, run: dg.DagsterRun) -> None:
    """Record that a run ended well, after Dagster had given it up."""
    event = dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name, message="The pod was still alive.")
    loaded.instance.report_dagster_event(event, run.run_id)


def test_a_run_that_was_given_up_and_still_succeeded_is_no_failure(loaded: Project) -> None:
    run = run_of(loaded, "2024-01", dg.DagsterRunStatus.STARTED)
    loaded.instance.report_run_failed(run)
    assert state(loaded) == "failed"
    report_success(loaded, run)
    assert state(loaded) == "complete"
    assert not any(key[0] == "failed_runs" for key in read(loaded))


def test_a_run_that_fails_while_an_earlier_one_loads_the_month_is_no_failure(
    loaded: Project,
) -> None:
    first, second = (run_of(loaded, "2024-01", dg.DagsterRunStatus.STARTED) for _ in range(2))
    for run in (first, second):
        loaded.instance.report_run_failed(run)
    assert state(loaded) == "failed"
    report_success(loaded, first)
    assert state(loaded) == "complete"


def test_the_sensor_writes_the_file_if_it_is_set(loaded: Project, tmp_path: Path) -> None:
    names = {sensor.name for sensor in loaded.definitions().sensors or ()}
    assert "metrics" not in names
    file = tmp_path / "finops.prom"
    loaded.metrics = {"file": str(file)}
    sensor = loaded.definitions().get_sensor_def("metrics")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    result = sensor(dg.build_sensor_context(loaded.instance))
    assert result == dg.SkipReason(f"{file} is written")
    assert samples(file.read_text())["month_rows", "acme", "2024-01"] == 2
    assert [path.name for path in tmp_path.glob("finops.prom*")] == ["finops.prom"]


@pytest.mark.thorough
def test_what_cannot_be_read_is_one_line_and_the_rest_stays(project: Project) -> None:
    finops = Finops(project, MONTHS)
    project.deliver("1")
    finops("aws", "run-pipeline")
    (project.folder / ".dagster/dagster.yaml").write_text(
        "storage: {postgres: {postgres_db: {scheme: postgresql+psycopg2, hostname: 127.0.0.1, "
        f"port: {free_port()}, username: u, password: p, db_name: d}}}}}}\n"
    )
    with duckdb.connect(str(project.database_file)):
        result = finops.run("metrics")
    assert result.exit_code == 0
    ledger, dagster = result.stderr.splitlines()
    assert ledger.startswith("the metrics of ledger are left out: ")
    assert dagster.startswith("the metrics of dagster are left out: ")
    found = samples(result.stdout)
    assert found["month_rows", "acme", "2024-01"] == 1
    assert found["metrics_source_up", "dagster"] == found["metrics_source_up", "ledger"] == 0


def test_too_little_memory_is_no_damage_of_the_ledger(loaded: Project) -> None:
    loaded.execute(
        "INSERT INTO finops_state.runs (export, billing_month, seconds, committed_at) "
        "SELECT 'acme', DATE '1800-01-01' + CAST(range AS INTEGER), 1, now() FROM range(100000)"
    )
    loaded.database = {"duckdb": {"memory_limit": "1MB", "threads": 1}}
    problems = list[str]()
    metrics = Metrics(loaded.settings(), problems.append)
    metrics.open_history = lambda: nullcontext(History(loaded.instance))
    metrics.prometheus_text()
    (problem,) = problems
    assert "left out: DuckDB needs more memory for this than database.duckdb.memory_l" in problem
    assert "damaged" not in problem


@pytest.mark.thorough
def test_without_the_lake_the_runs_stay_and_no_month_has_a_state(project: Project) -> None:
    project.deliver("1")
    Finops(project, MONTHS)("aws", "run-pipeline")
    storage = (
        '[storage]\nparquet_dir = "s3://lake/finops"\n'
        f'lake.endpoint_url = "http://127.0.0.1:{free_port()}"\n'
    )
    result = Finops(project, MONTHS + storage).run("metrics")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("the metrics of lake are left out: s3://lake/finops")
    found = samples(result.stdout)
    assert (found["metrics_source_up", "lake"], found["metrics_source_up", "dagster"]) == (0, 1)
    assert ("month_delivered_timestamp_seconds", "acme", "2024-01") in found
    assert not any(labels[0] in ("month_state", "month_rows") for labels in found)


def test_metrics_are_written_to_a_file_as_a_whole(finops: Finops) -> None:
    finops("metrics", "--out", "finops.prom")
    assert ("metrics_timestamp_seconds",) in samples(Path("finops.prom").read_text())
    refused = finops("metrics", "--out", "nowhere/finops.prom", code=1)
    assert refused.startswith("nowhere/finops.prom cannot be written: No such file or directory; ")
    assert len(refused.splitlines()) == 1
    assert "--out and --port" in finops("metrics", "--out", "a.prom", "--port", "9464", code=2)


@pytest.mark.thorough
def test_metrics_are_served_and_repeated_within_seconds(project: Project) -> None:
    finops = Finops(project, MONTHS)
    project.deliver("1")
    finops("aws", "run-pipeline")
    port = free_port()

    def scrape() -> Samples:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return samples(answer.read().decode())

    # Shells start processes in the background so that they ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = finops.start("metrics", "--port", str(port), "--seconds", "1000")
    signal.signal(signal.SIGINT, handler)
    try:
        for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
            with attempt:
                first = scrape()
        assert first["month_rows", "acme", "2024-01"] == 1
        assert scrape() == first
        assert f"port {port} of 127.0.0.1 cannot be used" in finops(
            "metrics", "--port", str(port), code=1
        )
    finally:
        process.terminate()
        stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert stdout == f"metrics are served on http://127.0.0.1:{port}/metrics; Ctrl-C ends it\n"
