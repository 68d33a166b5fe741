"""Azure's exports through the whole chain: loaded, unchanged, restated, requested."""

from __future__ import annotations

from decimal import Decimal

import pytest

from finops_dagster_tests.azure import (
    BILL,
    BILLED,
    LAYOUTS,
    MANIFESTS,
    Run,
    costs,
    deliver,
    focus_rows,
)
from finops_dagster_tests.project import MonthRun, Project, requested_months


def load(project: Project, month: str = "2024-01", **options: object) -> MonthRun:
    return project.load(month, export="contoso", **options)


def total(project: Project, month: str = "2024-01", column: str = "billedcost") -> Decimal | None:
    ((amount,),) = project.query(
        f"SELECT sum({column}) FROM azure WHERE billing_month = '{month}-01'"
    )
    return amount


@pytest.mark.parametrize(
    "suffix",
    [
        "csv.gz",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("csv", "snappy.parquet")),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.quick("one file", "dates first, run ids")
def test_a_month_is_loaded_from_every_layout(project: Project, layout: str, suffix: str) -> None:
    run = Run(layout=layout)
    parts = (
        [focus_rows(*BILL)]
        if layout == "one file"
        else [focus_rows(*BILL[:2]), focus_rows(*BILL[2:])]
    )
    deliver(project.put, run, *parts, suffix=suffix)
    outcome = load(project)
    assert total(project) == BILLED
    assert project.query("SELECT DISTINCT billing_month::TEXT, tags['env'] FROM azure") == [
        ("2024-01-01", "prod")
    ]
    if layout != "one file":
        assert outcome.data_versions() == {run.run_id}
    assert set(load(project).outcomes().values()) == {"unchanged"}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_month_is_loaded_by_every_version_of_the_manifest(
    project: Project, manifest: str
) -> None:
    deliver(project.put, Run(manifest=manifest), focus_rows(*BILL))
    assert load(project).data_versions() == {Run().run_id}
    assert total(project) == BILLED


def test_a_restated_month_is_requested_and_replaced(project: Project) -> None:
    deliver(project.put, Run(number=1), costs("1", "2"))
    first = project.tick(sensor="contoso_manifests")
    assert requested_months(first) == ["2024-01"]
    load(project)
    assert requested_months(project.tick(first.cursor, "contoso_manifests")) == []
    deliver(project.put, Run(number=2, export="contoso-lastmonth"), costs("1", "5"))
    second = project.tick(first.cursor, "contoso_manifests")
    assert requested_months(second) == ["2024-01"]
    metadata = load(project).metadata("billing_table")
    assert metadata["replaced_version"] == Run(number=1).run_id
    assert metadata["cost_changed_exact"] == "3"
    assert total(project) == 6
