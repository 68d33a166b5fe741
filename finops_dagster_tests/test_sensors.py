"""The sensor requests new and restated months, at the cost of one small request a month."""

import json
from collections import Counter
from datetime import date
from uuid import uuid4

import dagster as dg
import pytest

from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster.object_stores import StoreError
from finops_dagster_tests.cur import Put, line_items, upload
from finops_dagster_tests.project import Project, requested_months
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture(autouse=True)
def bucket_of_2024(project: Project, put_in_bucket: Put) -> None:
    """Let the project's export read a bucket, from 2024-01 on."""
    project.export["start_month"] = "2024-01"


def deliver(project: Project, *numbers: int, cost: str = "1") -> None:
    for number in numbers:
        project.deliver(cost, month=f"2024-{number:02}")


MANIFEST = "acme-cur/20240101-20240201/acme-cur-Manifest.json"
LONG = 10**7


def with_age(cursor: str | None, seconds: float) -> str:
    """Return the cursor as if the last requests were so many seconds ago."""
    document = json.loads(cursor or "{}")
    for month in document.values():
        month["last"] -= seconds
    return json.dumps(document)


def add_run(project: Project, status: dg.DagsterRunStatus) -> None:
    tags = {"finops/export": "acme", "dagster/partition": "2024-01"}
    run = dg.DagsterRun(job_name="acme_month", run_id=str(uuid4()), status=status, tags=tags)
    project.instance.add_run(run)


def test_new_months_are_requested_once_and_restated_ones_again(project: Project) -> None:
    deliver(project, 1, 3)
    first = project.tick()
    assert requested_months(first) == ["2024-03", "2024-01"]
    assert json.loads(first.cursor or "").keys() == {"2024-01", "2024-03"}
    assert requested_months(project.tick(first.cursor)) == []
    project.deliver("2", version="v2")
    second = project.tick(first.cursor)
    assert requested_months(second) == ["2024-01"]
    keys = {request.run_key for request in first.run_requests or []}
    (restated,) = second.run_requests or []
    assert restated.run_key not in keys
    project.deliver("1")  # the first version comes back
    (reverted,) = project.tick(second.cursor).run_requests or []
    assert reverted.run_key not in {*keys, restated.run_key}


def test_the_first_tick_requests_only_months_that_are_not_loaded(project: Project) -> None:
    deliver(project, 1, 2, 3, 4, 5)
    for month in ("2024-01", "2024-02", "2024-03"):
        project.load(month)
    project.deliver("2", month="2024-02", version="v2")
    project.load("2024-03", stages=["manifest", "staged_files"])
    deliver(project, 4, cost="much")
    assert not project.materialize("2024-04").success
    first = project.tick()
    assert requested_months(first) == ["2024-05", "2024-04", "2024-03", "2024-02"]
    assert requested_months(project.tick(first.cursor)) == []


def test_other_files_with_the_same_vendor_id_are_requested(project: Project) -> None:
    deliver(project, 1)
    project.load()
    first = project.tick()
    assert requested_months(first) == []
    assert first.skip_reason == dg.SkipReason(
        "no run is due: 1 of the vendor's 1 months are loaded"
    )
    project.deliver(line_items("2024-01", "1"), line_items("2024-01", "2"))
    assert requested_months(project.tick(first.cursor)) == ["2024-01"]
    assert project.load().metadata("parquet")["manifest_id"].startswith("v1+")
    assert requested_months(project.tick()) == []


def test_an_older_version_that_another_run_completes_does_not_count(project: Project) -> None:
    deliver(project, 1)
    project.load(stages=["manifest", "staged_files", "billing_table"])
    project.deliver("2", version="v2")
    project.load(stages=["manifest"])
    project.load(stages=["parquet"])
    assert requested_months(project.tick()) == ["2024-01"]
    project.load()
    assert requested_months(project.tick()) == []


def test_a_failed_month_is_requested_again_with_growing_pauses(project: Project) -> None:
    deliver(project, 1, cost="much")
    ticks = [project.tick()]
    assert not project.materialize().success
    for seconds in (600, 1800, 7200, 21600, 86400):
        assert requested_months(project.tick(with_age(ticks[-1].cursor, seconds - 60))) == []
        ticks.append(project.tick(with_age(ticks[-1].cursor, seconds)))
        assert requested_months(ticks[-1]) == ["2024-01"]
    assert len({request.run_key for tick in ticks for request in tick.run_requests or []}) == 6
    assert requested_months(project.tick(with_age(ticks[-1].cursor, LONG))) == []
    project.deliver("1", version="v2")
    newer = project.tick(ticks[-1].cursor)
    assert requested_months(newer) == ["2024-01"]
    project.load()
    assert requested_months(project.tick(with_age(newer.cursor, LONG))) == []


def test_a_run_has_the_size_of_the_newest_version_known(project: Project) -> None:
    resources = {"container_config": {"resources": {"requests": {"cpu": "4"}}}}
    large = {"tags": {"dagster-k8s/config": resources}}
    deliver(project, 1, 2)

    def sizes(up_to: str) -> list[str]:
        project.run_sizes = [{"up_to": up_to, "tags": {"size": "small"}}, large]
        return [
            request.tags.get("size") or json.loads(request.tags["dagster-k8s/config"])
            for request in project.tick().run_requests or []
        ]

    assert sizes("1GB") == [resources, resources]  # nothing is loaded yet
    project.load("2024-01")
    assert sizes("1GB") == ["small"]
    assert sizes("1B") == [resources]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_month_that_is_queued_or_running_is_not_requested(
    project: Project, status: dg.DagsterRunStatus
) -> None:
    deliver(project, 1, 2)
    add_run(project, status)
    first = project.tick()
    assert requested_months(first) == ["2024-02"]
    assert requested_months(project.tick(with_age(first.cursor, LONG))) == ["2024-02"]


def test_a_canceled_month_waits_for_the_next_version(project: Project) -> None:
    deliver(project, 1)
    first = project.tick()
    add_run(project, dg.DagsterRunStatus.CANCELED)
    assert requested_months(project.tick(with_age(first.cursor, LONG))) == []
    project.deliver("2", version="v2")
    assert requested_months(project.tick(first.cursor)) == ["2024-01"]


def test_a_cursor_of_an_earlier_release_is_read(project: Project) -> None:
    deliver(project, 1, 2)
    project.load()
    cursor = json.loads(project.tick().cursor or "")
    versions = {month: entry["version"] for month, entry in cursor.items()}
    tick = project.tick(json.dumps(versions))
    assert requested_months(tick) == ["2024-02"], (
        "its run was requested once, and has not loaded it"
    )
    assert requested_months(project.tick(tick.cursor)) == []


@pytest.mark.thorough
def test_a_tick_costs_one_list_and_one_get_per_month(project: Project, s3: S3Server) -> None:
    deliver(project, 1, 2)
    for number in range(1100):
        project.put(MANIFEST.replace("/acme-cur-M", f"/old{number}/acme-cur-M"), b"{}")
    first = project.tick()
    s3.requests.clear()
    project.tick(first.cursor)
    assert Counter((method, path.count("/")) for method, path in s3.requests) == {
        ("GET", 1): 1,
        ("GET", 4): 2,
    }


def test_a_month_with_an_invalid_manifest_is_requested_and_its_run_fails(project: Project) -> None:
    deliver(project, 1, 2)
    project.put(MANIFEST, b"{not json")
    first = project.tick()
    assert requested_months(first) == ["2024-02", "2024-01"]
    assert "is not JSON" in project.materialize().error
    project.load("2024-02")
    assert requested_months(project.tick(first.cursor)) == []
    deliver(project, 1)
    assert requested_months(project.tick(first.cursor)) == ["2024-01"]


def test_an_export_without_months_or_access_fails_the_tick(project: Project, s3: S3Server) -> None:
    project.deliver("1", prefix="finance", export_name="other-cur")
    project.export["source"] += "/finance"
    with pytest.raises(ManifestMissing, match="acme has no manifest of") as error:
        project.tick()
    hint = "/finance has other-cur; check source and export_name of acme"
    assert str(error.value).endswith(hint)

    def forbidden(environ, start_response):
        start_response("403 Forbidden", [("Content-Length", "0")])
        return [b""]

    s3.fault = forbidden
    with pytest.raises(StoreError, match="S3 refuses"):
        project.tick()


def test_the_sensor_is_off_until_the_settings_turn_it_on(project: Project) -> None:
    statuses = dg.DefaultSensorStatus
    for is_on, status in {False: statuses.STOPPED, True: statuses.RUNNING}.items():
        project.export["sensor"] = is_on
        sensor = project.definitions().get_sensor_def("acme_manifests")
        assert sensor.default_status is status


def write(project: Project, layout: Layout, *versions: BillVersion, prefix: str = "") -> None:
    for version in versions:
        write_version(project.source, prefix, "acme-cur", version, layout=layout)
    upload(project.source, project.put)


@pytest.mark.parametrize(
    ("layout", "lists"),
    [
        (Layout(), 1),
        (Layout("cur2"), 1),
        (Layout("cur2", "parquet", partition="billing_period"), 1),
        (Layout("focus-1.0", overwrite=True), 1),
        (Layout(files="parquet", overwrite=True), 3),
    ],
    ids=["cur1", "cur2", "cur2-small-letters", "focus-overwrite", "cur1-parquet"],
)
@pytest.mark.quick("cur2-small-letters", "cur1-parquet")
def test_a_tick_reads_every_layout(
    project: Project, s3: S3Server, layout: Layout, lists: int
) -> None:
    project.export["format"] = layout.format.partition("-")[0]
    versions = (
        BillVersion(date(2024, month, 1), "20240403T051544Z", rows=40) for month in (1, 2, 3)
    )
    write(project, layout, *versions, prefix="a/b")
    project.export["source"] += "/a/b"
    first = project.tick()
    assert requested_months(first) == ["2024-03", "2024-02", "2024-01"]
    s3.requests.clear()
    assert requested_months(project.tick(first.cursor)) == []
    read = [path for _, path in s3.requests if path.endswith(".json")]
    assert (len(read), len(s3.requests)) == (3, 3 + lists)
    refunded = BillVersion(date(2024, 1, 1), "20250606T000000Z", rows=41, restated=True)
    write(project, layout, refunded, prefix="a/b")
    assert requested_months(project.tick(first.cursor)) == ["2024-01"], (
        "a late refund to an old month"
    )
