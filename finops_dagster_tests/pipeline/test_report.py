"""The asset `report`: one page over all exports, made once after months of charges."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finops_dagster.pipeline import stage
from finops_dagster_tests.object_stores.test_s3 import refuse
from finops_dagster_tests.pipeline.automation import Automation
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

PAGE = Path("data/parquet/report/report.html")


def materialize(project: Project) -> dg.ExecuteInProcessResult:
    definitions = project.definitions()
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance,
        asset_selection=[dg.AssetKey(["report"])],
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult) -> str | None:
    """Return the message of the failed asset."""
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    reported = failed.step_failure_data.user_failure_data
    return reported and reported.description


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success, failure(result)
    (event,) = result.get_asset_materialization_events()
    return {name: entry.value for name, entry in event.materialization.metadata.items()}


def test_the_page_lies_beside_the_lake_and_its_key_figures_in_the_metadata(focus: Project) -> None:
    focus.deliver("1.000000000000000001", month="2024-01")
    focus.deliver("3", month="2024-02")
    for month in ("2024-01", "2024-02"):
        focus.load(month)
    values = metadata(materialize(focus))
    assert Path(values["path"]).resolve() == focus.folder / PAGE
    assert "<html" in PAGE.read_text(encoding="utf-8")
    assert (values["month"], values["months"]) == ("2024-02", "2024-01 to 2024-02")
    assert (values["billed_exact"], values["effective_exact"]) == ("3", "3")
    assert values["cost_by_month"].endswith(f"| 2024-02 | USD | {'█' * 20} | 3.00 |")
    assert Decimal(str(values["billed_month_before"])) == 1
    assert values["bytes"] == PAGE.stat().st_size


def test_the_report_warns_of_a_exceeded_budget(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = {"name": "All", "amount": "1", "currency": "USD"}
    monkeypatch.setenv("FINOPS_BUDGETS", json.dumps([budget]))
    focus.deliver("1.000000000000000001", month="2024-01")
    focus.load("2024-01")
    result = materialize(focus)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in checks.items()} == {
        "budgets_kept": False,
        "no_anomalies": True,
    }
    (row,) = checks["budgets_kept"].metadata["budgets"].records
    assert (row.data["budget"], row.data["state"]) == ("All", "exceeded")
    assert result.success


def test_a_report_without_charges_fails_in_one_line(focus: Project) -> None:
    result = materialize(focus)
    assert failure(result) == (
        "data/parquet has no charges of any month; run finops aws run-pipeline, or that of another "
        "vendor"
    )


@pytest.fixture
def focus_in_store(focus: Project, lake_storage: dict[str, Any]) -> Project:
    """Return a project whose lake on S3 has the charges of a month."""
    focus.storage = lake_storage
    focus.deliver("1", month="2024-01")
    focus.load("2024-01")
    return focus


def test_a_store_that_refuses_the_lake_fails_the_report_in_one_line(
    focus_in_store: Project, s3: S3Server
) -> None:
    refuse(s3, "403 Forbidden", "AccessDenied", "Access Denied")
    result = materialize(focus_in_store)
    assert "S3 refuses (AccessDenied: Access Denied)" in str(failure(result))
    assert not any(event.is_step_up_for_retry for event in result.all_events)


@pytest.mark.thorough
def test_a_report_is_tried_again_while_the_store_is_busy(
    focus_in_store: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_RETRIES", 0)
    refuse(s3, "503 Slow Down", "SlowDown", "Reduce your request rate.")
    busy, requests = s3.fault, count(1)

    def busy_for_the_first_try(environ: Any, start_response: Any) -> Any:
        # The client itself tries six times.
        return busy(environ, start_response) if busy and next(requests) <= 6 else None

    s3.fault = busy_for_the_first_try
    result = materialize(focus_in_store)
    assert result.success, failure(result)
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 1


def test_several_months_make_one_report(focus: Project) -> None:
    automation = Automation(focus)
    for month in ("2024-01", "2024-02"):
        focus.deliver("1", month=month)
        focus.load(month)
    assert automation.requested() == ["report"]
    assert automation.requested() == []


def test_an_export_without_charges_has_no_report(project: Project) -> None:
    assert not project.definitions().resolve_asset_graph().has(dg.AssetKey(["report"]))
