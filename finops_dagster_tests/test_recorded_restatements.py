"""Each load records what it replaced, by service and account, in the ledger and in the lake."""

import gzip
import shutil
from decimal import Decimal
from typing import Any

import pytest

from finops_dagster.billing.restatement import OTHER, Restatement, restatements_of_footer
from finops_dagster.lake import footer_texts
from finops_dagster_tests.cur import HEADERS as PLAIN
from finops_dagster_tests.cur import csv_bytes, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import UNCHANGED, MonthRun, Project

HEADERS = (*PLAIN, "lineItem/UsageAccountId", "lineItem/CurrencyCode")
COLUMNS = "currency, service, account, cost_before, cost_after, rows_before, rows_after"
Cost = tuple[str, str, str] | tuple[str, str, str, str]
"""Service, account and cost of a line item; its currency, if not USD."""


def rows_of(*costs: Cost) -> list[dict[str, str]]:
    return [
        line_item(
            "2024-01",
            lineItem__ProductCode=service,
            lineItem__UsageAccountId=account,
            lineItem__UnblendedCost=cost,
            lineItem__CurrencyCode=currency[0] if currency else "USD",
        )
        for service, account, cost, *currency in costs
    ]


def load(project: Project, version: str, *costs: Cost, **options: Any) -> MonthRun:
    # Without a time in it, the same rows are the same content.
    file = gzip.compress(csv_bytes(rows_of(*costs), HEADERS), mtime=0)
    project.deliver(file, version=version, headers=HEADERS)
    return project.load(**options)


def recorded(project: Project, columns: str = COLUMNS) -> list[tuple[Any, ...]]:
    return project.query(f"SELECT {columns} FROM finops_state.restatements ORDER BY ALL")


def in_lake(project: Project) -> list[Restatement]:
    texts = footer_texts(project.parquet_path())
    assert texts is not None
    return restatements_of_footer(texts)


def as_recorded(restatements: list[Restatement]) -> list[tuple[Any, ...]]:
    """Return the rows that `recorded` returns of the restatements, with all fields."""
    rows = [
        (r.number, r.manifest_id, r.replaced_id, r.restated_at, r.run_id, *vars(change).values())
        for r in restatements
        for change in r.changes
    ]
    return sorted(rows, key=str)


ALL = f"restatement_number, manifest_id, replaced_id, restated_at, run_id, {COLUMNS}"


def assert_lake_has_all(project: Project, versions: list[str]) -> None:
    """Assert that ledger and lake have the same restatements, of these versions, newest first."""
    assert [restatement.manifest_id for restatement in in_lake(project)] == versions
    assert sorted(recorded(project, ALL), key=str) == as_recorded(in_lake(project))


def test_a_load_records_what_it_replaced_in_the_ledger_and_in_the_lake(project: Project) -> None:
    first = load(project, "v1", ("EC2", "1", "101"), ("EC2", "2", "7"), ("S3", "1", "50"))
    project.load(force=True)
    assert recorded(project) == []
    assert in_lake(project) == []
    assert "replaced_version" not in first.metadata("billing_table")
    run = load(project, "v2", ("EC2", "1", "101"), ("EC2", "2", "7"), ("Tax", "", "9.5"))
    expected = [
        ("USD", "S3", "1", 50, 0, 1, 0),
        ("USD", "Tax", None, 0, Decimal("9.5"), 0, 1),
        ("USD", OTHER, OTHER, 108, 108, 2, 2),
    ]
    for force in (False, True):
        assert recorded(project) == expected
        assert_lake_has_all(project, ["v2"])
        project.load(force=force)
    (restatement,) = in_lake(project)
    assert (restatement.replaced_id, restatement.run_id) == ("v1", run.run_id)


@pytest.mark.thorough
def test_a_lost_database_gets_the_history_from_the_lake(project: Project) -> None:
    for number in (1, 2):
        load(project, f"v{number}", ("EC2", "1", str(number)))
    history = in_lake(project)
    project.database_file.unlink()
    project.load()
    assert in_lake(project) == history
    shutil.rmtree(project.folder / "data/staging")
    project.database_file.unlink()
    project.load()
    assert_lake_has_all(project, ["v2"])
    assert in_lake(project) == history
    project.database_file.unlink()
    outcome = load(project, "v3", ("EC2", "1", "4"))
    assert_lake_has_all(project, ["v3", "v2"])
    newest, *_ = in_lake(project)
    assert [(c.cost_before, c.cost_after) for c in newest.changes] == [(2, 4)], "from the lake"
    assert outcome.metadata("billing_table")["replaced_version"] == "v2"


@pytest.mark.thorough
def test_a_history_that_did_not_reach_the_lake_is_written_later(project: Project) -> None:
    load(project, "v1", ("EC2", "1", "1"))
    for version, cost in (("v2", "2"), ("v1", "1")):
        load(
            project,
            version,
            ("EC2", "1", cost),
            stages=["manifest", "staged_files", "billing_table"],
        )
    assert in_lake(project) == []
    assert project.load().outcomes() == UNCHANGED | {"parquet": "exported"}
    assert_lake_has_all(project, ["v1", "v2"])
    assert project.load().outcomes() == UNCHANGED
    project.execute("DELETE FROM finops_state.restatements")
    project.load(stages=["parquet"], force=True)
    assert_lake_has_all(project, ["v1", "v2"])


@pytest.mark.thorough
def test_verify_and_import_restore_restatements_and_cleanup_keeps_them(
    project: Project, finops: Finops
) -> None:
    for number in ("1", "2"):
        project.deliver(rows_of(("EC2", "1", number)), version=f"v{number}", headers=HEADERS)
        finops("aws", "run-pipeline")
    history = in_lake(project)
    finops("state", "export", "state.yaml")
    project.execute("UPDATE finops_state.manifests SET loaded_at = '2020-01-01'")
    finops("state", "cleanup", "--older-than", "0h")
    assert finops("state", "verify").startswith("all agree\n")

    project.execute("DELETE FROM finops_state.restatements")
    (difference,) = finops.json("state", "verify")
    assert difference["what_differs"].startswith("the ledger lacks 1 restatement of data/parquet/")
    assert difference["repair"] == "finops state verify --repair"
    restored = "acme 2024-01  restored in the ledger: 1 restatement\n"
    assert restored in finops("state", "verify", "--repair")
    project.execute("ALTER TABLE finops_state.restatements DROP COLUMN service")
    damage = "finops_state.restatements is damaged: it has no column service"
    assert damage in finops("state", "verify", code=1)
    assert restored in finops("state", "verify", "--repair")
    project.execute("DROP SCHEMA finops_state CASCADE")
    assert "restored in the ledger: v2" in finops("state", "verify", "--repair")
    assert_lake_has_all(project, ["v2"])

    project.execute("DELETE FROM finops_state.restatements")
    finops("state", "import", "state.yaml")
    assert_lake_has_all(project, ["v2"])
    assert in_lake(project) == history
