"""Charges are derived again when the bill or the mapping changes, and never twice."""

import json

import dagster as dg
import pytest

from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster_tests.pipeline.automation import Automation
from finops_dagster_tests.project import Project, requested_months
from finops_dagster_tests.small_mapping import small_mapping, taxed


def test_a_run_of_the_job_derives_charges_once(focus: Project) -> None:
    automation = Automation(focus)
    focus.deliver("1")
    focus.load()
    assert automation.requested() == ["report"]
    focus.deliver("2", version="v2")
    focus.load()
    assert automation.requested() == ["report"]


def test_a_run_of_parquet_alone_is_followed_once_by_the_charges(focus: Project) -> None:
    automation = Automation(focus)
    for version in ("v1", "v2"):
        focus.deliver("1", version=version)
        focus.load(stages=["manifest", "staged_files", "billing_table", "parquet"])
        assert automation.requested() == ["2024-01 focus"]
        assert automation.requested() == []
        assert focus.load(stages=["focus"]).outcomes() == {"focus": "derived"}
        assert automation.requested() == ["report"]


def test_charges_of_a_run_that_was_cut_off_are_left_to_its_retry_and_derived_once(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off, months = "2024-01", ("2024-01", "2024-02")
    for month in (*months, "2024-03"):
        focus.deliver("1", month=month)
    focus.load("2024-03")
    automation = Automation(focus)

    def run_job(month: str) -> bool:
        job = focus.definitions().resolve_job_def("acme_month")
        options = {"instance": focus.instance, "raise_on_error": False}
        return job.execute_in_process(partition_key=month, **options).success

    with monkeypatch.context() as fault:
        fault.setattr("finops_dagster.pipeline.focus.focus_derivation", None)
        assert not run_job(cut_off)
    assert run_job("2024-02")
    assert automation.requested() == ["report"]
    assert run_job(cut_off)
    assert automation.requested() == ["report"]
    charges = dg.AssetRecordsFilter(dg.AssetKey(["acme", "focus"]), asset_partitions=months)
    records = focus.instance.fetch_materializations(charges, limit=9).records
    events = [record.asset_materialization for record in records]
    assert [e.metadata["outcome"].value for e in events if e] == ["derived"] * 2


def test_the_sensor_requests_the_charges_alone_after_another_mapping(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    focus.deliver("1")
    focus.load()
    loaded = focus.tick()
    assert (requested_months(loaded)) == []
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping("newer"))
    (request,) = focus.tick(loaded.cursor).run_requests or []
    assert request.partition_key == "2024-01"
    assert [key.to_user_string() for key in request.asset_selection or []] == ["acme/focus"]


def test_the_sensor_requests_charges_that_failed_again_after_a_pause(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping(moved=""))
    focus.deliver(taxed("1", tax="1"))
    assert not focus.materialize().success
    first = focus.tick()
    assert requested_months(first) == ["2024-01"]
    second = focus.tick(first.cursor)
    assert requested_months(second) == []
    cursor = json.loads(second.cursor or "")
    cursor["2024-01 focus"]["last"] -= 10**7
    assert requested_months(focus.tick(json.dumps(cursor))) == ["2024-01"]


def test_the_sensor_leaves_the_charges_of_a_killed_run_to_its_retry_for_ten_minutes(
    focus: Project,
) -> None:
    focus.deliver("1")
    requested = focus.tick()
    assert requested_months(requested) == ["2024-01"]
    focus.load(stages=["manifest", "staged_files", "billing_table", "parquet"])
    loaded = focus.tick(requested.cursor)
    assert requested_months(loaded) == []
    cursor = json.loads(loaded.cursor or "")
    cursor["2024-01"]["last"] -= 600
    assert requested_months(focus.tick(json.dumps(cursor))) == ["2024-01"]


def test_a_new_month_is_requested_whole_and_not_for_its_charges_too(focus: Project) -> None:
    focus.deliver("1")
    (request,) = focus.tick().run_requests or []
    assert request.asset_selection is None
    focus.load()
    focus.deliver("2", version="v2")
    (request,) = focus.tick().run_requests or []
    assert request.asset_selection is None


def test_charges_of_two_exports_depend_on_the_files_of_both(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("azure", "actual"), small_mapping())
    azure = {"vendor": "azure", "source": f"file://{focus.source}", "start_month": "2024-01"}
    focus.export = {**azure, "name": "actual", "format": "actual", "amortized_from": "amortized"}
    focus.more_exports = [{**azure, "name": "amortized", "format": "amortized"}]
    graph = focus.definitions().resolve_asset_graph()
    parents = graph.get(dg.AssetKey(["actual", "focus"])).parent_keys
    assert {key.to_user_string() for key in parents} == {"actual/parquet", "amortized/parquet"}
    assert not graph.has(dg.AssetKey(["amortized", "focus"]))


@pytest.mark.thorough
def test_the_warehouse_follows_the_charges_in_the_same_evaluation(focus: Project) -> None:
    focus.database = {"duckdb": {"warehouse_path": str(focus.folder / "data/warehouse.duckdb")}}
    automation = Automation(focus)
    focus.deliver("1")
    focus.load()
    assert automation.requested() == ["report"]
    focus.deliver("2", version="v2")
    focus.load(stages=["manifest", "staged_files", "billing_table", "parquet", "warehouse_table"])
    assert sorted(automation.requested()) == ["2024-01 focus", "2024-01 warehouse_focus"]
    focus.load(stages=["focus", "warehouse_focus"])
    assert automation.requested() == ["report"]
