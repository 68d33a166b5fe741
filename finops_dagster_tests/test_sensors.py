"""The sensor notices new and restated months, at one small request a month."""

from __future__ import annotations

import json
from datetime import date
from uuid import uuid4

import dagster as dg
import pytest

from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import Layout, Version, write_version
from finops_dagster.object_stores import StoreError
from finops_dagster_tests.cur import Put, deliver, items, upload
from finops_dagster_tests.project import Project, months
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def put(project: Project, s3: S3Server, bucket: str) -> Put:
    """Puts into a bucket that the project's export reads."""
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    project.export["start_month"] = "2024-01"
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


def test_new_months_are_asked_for_once_the_newest_first(project: Project, put: Put) -> None:
    for month in ("2024-01", "2024-03"):
        deliver(put, month, [items(month, "1")])
    first = project.tick()
    assert months(first) == ["2024-03", "2024-01"]
    assert json.loads(first.cursor or "").keys() == {"2024-01", "2024-03"}
    assert months(project.tick(first.cursor)) == []


def test_the_first_look_asks_only_for_what_is_not_loaded(project: Project, put: Put) -> None:
    for month in ("2024-01", "2024-02", "2024-03", "2024-04", "2024-05"):
        deliver(put, month, [items(month, "1")], version="v1")
    for month in ("2024-01", "2024-02", "2024-03"):
        project.load(month)
    deliver(put, "2024-02", [items("2024-02", "2")], version="v2")
    assert project.materialize("2024-03", stages=["manifest", "staged_files"]).success
    deliver(put, "2024-04", [items("2024-04", "much")], version="v1")
    assert not project.materialize("2024-04").success
    first = project.tick()
    assert months(first) == ["2024-05", "2024-04", "2024-03", "2024-02"]
    assert months(project.tick(first.cursor)) == []


def test_a_manifest_that_lists_other_files_under_the_same_id_is_asked_for(
    project: Project, put: Put
) -> None:
    deliver(put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    first = project.tick()
    assert months(first) == []
    deliver(put, "2024-01", [items("2024-01", "1"), items("2024-01", "2")], version="v1")
    assert months(project.tick(first.cursor)) == ["2024-01"]
    assert project.load("2024-01").metadata("parquet")["manifest_id"].startswith("v1+")
    assert months(project.tick()) == []


def test_a_restated_month_is_asked_for_alone(project: Project, put: Put) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")])
    first = project.tick()
    deliver(put, "2024-01", [items("2024-01", "2")], version="v2")
    second = project.tick(first.cursor)
    assert months(second) == ["2024-01"]
    (request,) = second.run_requests or []
    assert request.run_key not in {r.run_key for r in first.run_requests or []}


def later(cursor: str | None, seconds: float) -> str:
    """The cursor as it would be read so much later."""
    kept = json.loads(cursor or "{}")
    for month in kept.values():
        month["last"] -= seconds
    return json.dumps(kept)


def run_of(project: Project, month: str, status: dg.DagsterRunStatus) -> None:
    """Put a run of the month into Dagster's history."""
    tags = {"finops/export": "acme", "dagster/partition": month}
    run = dg.DagsterRun(job_name="acme_month", run_id=str(uuid4()), status=status, tags=tags)
    project.instance.add_run(run)


def test_a_month_whose_run_failed_is_asked_for_again_with_growing_pauses_and_an_end(
    project: Project, put: Put
) -> None:
    deliver(put, "2024-01", [items("2024-01", "much")])
    ticks = [project.tick()]
    assert not project.materialize("2024-01").success
    for seconds in (600, 1800, 7200, 21600, 86400):
        assert months(project.tick(later(ticks[-1].cursor, seconds - 60))) == []
        ticks.append(project.tick(later(ticks[-1].cursor, seconds)))
        assert months(ticks[-1]) == ["2024-01"]
    assert len({request.run_key for one in ticks for request in one.run_requests or []}) == 6
    assert months(project.tick(later(ticks[-1].cursor, 10**7))) == []
    deliver(put, "2024-01", [items("2024-01", "1")], version="v2")
    newer = project.tick(ticks[-1].cursor)
    assert months(newer) == ["2024-01"]
    project.load("2024-01")
    assert months(project.tick(later(newer.cursor, 10**7))) == []


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_month_that_is_queued_or_running_is_not_asked_for(
    project: Project, put: Put, status: dg.DagsterRunStatus
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")])
    run_of(project, "2024-01", status)
    first = project.tick()
    assert months(first) == ["2024-02"]
    assert months(project.tick(later(first.cursor, 10**7))) == ["2024-02"]


def test_a_version_that_comes_back_is_asked_for_under_another_key(
    project: Project, put: Put
) -> None:
    keys, cursor = [], None
    for version in ("v1", "v2", "v1"):
        deliver(put, "2024-01", [items("2024-01", "1")], version=version)
        result = project.tick(cursor)
        keys += [request.run_key for request in result.run_requests or []]
        cursor = result.cursor
    assert len(set(keys)) == 3


def test_a_month_that_a_person_stopped_waits_for_the_next_version(
    project: Project, put: Put
) -> None:
    deliver(put, "2024-01", [items("2024-01", "1")])
    first = project.tick()
    run_of(project, "2024-01", dg.DagsterRunStatus.CANCELED)
    assert months(project.tick(later(first.cursor, 10**7))) == []
    deliver(put, "2024-01", [items("2024-01", "2")], version="v2")
    assert months(project.tick(first.cursor)) == ["2024-01"]


def test_a_cursor_of_an_earlier_release_is_carried_on(project: Project, put: Put) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")])
    project.load("2024-01")
    kept = json.loads(project.tick().cursor or "")
    versions = {month: kept.get(month, kept["2024-02"])["version"] for month in kept}
    again = project.tick(json.dumps(versions))
    assert months(again) == ["2024-02"], "its run was asked for once, and has not loaded it"
    assert months(project.tick(again.cursor)) == []


@pytest.mark.thorough
def test_a_look_costs_one_list_and_one_get_a_month_whatever_lies_beside_it(
    project: Project, put: Put, s3: S3Server
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")])
    for number in range(1100):
        put(f"acme-cur/20240101-20240201/old{number}/acme-cur-Manifest.json", b"{}")
    first = project.tick()
    s3.requests.clear()
    project.tick(first.cursor)
    methods = sorted((method, path.count("/")) for method, path in s3.requests)
    assert methods == [("GET", 1), ("GET", 4), ("GET", 4)]


def test_a_manifest_that_cannot_be_read_is_asked_for_and_its_run_fails(
    project: Project, put: Put
) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")])
    put("acme-cur/20240101-20240201/acme-cur-Manifest.json", b"{not json")
    first = project.tick()
    assert months(first) == ["2024-02", "2024-01"]
    assert "is not JSON" in project.materialize("2024-01").error
    assert project.materialize("2024-02").success
    assert months(project.tick(first.cursor)) == []
    deliver(put, "2024-01", [items("2024-01", "1")])
    assert months(project.tick(first.cursor)) == ["2024-01"]


def test_an_export_without_any_month_fails_the_tick_and_says_what_lies_there_instead(
    project: Project, put: Put
) -> None:
    deliver(put, "2024-01", [items("2024-01", "1")], prefix="finance", report="other-cur")
    project.export["source"] += "/finance"
    with pytest.raises(ManifestMissing, match="acme has no manifest of") as caught:
        project.tick()
    assert str(caught.value).endswith(
        "/finance has other-cur; look at source and export_name of acme"
    )


def test_a_store_that_says_no_fails_the_tick(project: Project, put: Put, s3: S3Server) -> None:
    project.export["source"] = "s3://acme-billing-of-nobody"

    def forbidden(environ, start_response):
        start_response("403 Forbidden", [("Content-Length", "0")])
        return [b""]

    s3.fault = forbidden
    with pytest.raises(StoreError, match="S3 refuses"):
        project.tick()


def test_the_sensor_is_off_until_the_settings_turn_it_on(project: Project) -> None:
    def status() -> dg.DefaultSensorStatus:
        return project.definitions().get_sensor_def("acme_manifests").default_status

    assert status() is dg.DefaultSensorStatus.STOPPED
    project.export["sensor"] = True
    assert status() is dg.DefaultSensorStatus.RUNNING


def test_the_month_in_progress_is_a_partition(project: Project) -> None:
    keys = project.the_export().partitions.get_partition_keys()
    assert keys[0] == "2023-01"
    assert keys[-1] == str(BillingMonth.current())


@pytest.mark.parametrize(
    "layout",
    [
        Layout("cur2"),
        Layout("cur2", "parquet", partition="billing_period"),
        Layout("focus-1.0", overwrite=True),
        Layout(files="parquet", overwrite=True),
    ],
    ids=["cur2", "cur2-small-letters", "focus-overwrite", "cur1-parquet"],
)
def test_every_layout_is_looked_at_by_one_list_and_one_get_a_month(
    project: Project, put: Put, s3: S3Server, layout: Layout
) -> None:
    project.export["format"] = layout.format.partition("-")[0]
    for month in (date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)):
        version = Version(month, "20240403T051544Z", rows=40)
        write_version(project.source, "a/b", "acme-cur", version, layout=layout)
    upload(project.source, put)
    project.export["source"] += "/a/b"
    first = project.tick()
    assert months(first) == ["2024-03", "2024-02", "2024-01"]
    s3.requests.clear()
    assert months(project.tick(first.cursor)) == []
    read = [path for _, path in s3.requests if path.endswith(".json")]
    assert len(read) == 3
    assert len(s3.requests) - len(read) == (
        3 if layout.files == "parquet" and layout.format == "cur1" else 1
    )


@pytest.mark.parametrize("layout", [Layout(), Layout("focus-1.2")], ids=["cur1", "focus"])
def test_a_late_refund_to_an_old_month_is_found(project: Project, put: Put, layout: Layout) -> None:
    project.export["format"] = None
    for number in range(1, 13):
        version = Version(date(2024, number, 1), "20250103T000000Z", rows=30)
        write_version(project.source, "", "acme-cur", version, layout=layout)
    upload(project.source, put)
    first = project.tick()
    assert len(months(first)) == 12
    refunded = Version(date(2024, 2, 1), "20250606T000000Z", rows=31, restated=True)
    write_version(project.source, "", "acme-cur", refunded, layout=layout)
    upload(project.source, put)
    assert months(project.tick(first.cursor)) == ["2024-02"]
