"""State that is reported, cleaned, made again, and moved to another machine."""

from __future__ import annotations

import html
import json
import os
import pwd
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.state_document import read
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import SETTINGS, Project

MONTHS = ("2024-01", "2024-02", "2024-03")
YEAR = 365 * 24 * 3600


@pytest.fixture
def loaded(project: Project, finops: Finops) -> Finops:
    """Three months of which the second was restated, and the third failed."""
    for month in MONTHS[:2]:
        deliver(project.put, month, [items(month, "1", "2")], version="v1")
    assert finops.here("aws", "run-pipeline").exit_code == 0
    deliver(project.put, "2024-02", [items("2024-02", "4")], version="v2")
    deliver(project.put, "2024-03", [items("2024-03", "much")], version="v1")
    assert finops.here("aws", "run-pipeline").exit_code == 1
    return finops


def damage(project: Project, *sql: str) -> None:
    with duckdb.connect(str(project.database_file)) as connection:
        for statement in sql:
            connection.execute(statement)


@pytest.mark.thorough
def test_a_report_has_progress_failures_times_and_restarts(
    project: Project, loaded: Finops
) -> None:
    report = json.loads(loaded("state", "report", "--format", "json"))
    (progress,) = report["progress"]
    assert progress == {
        "export": "acme",
        "months": 3,
        "complete": 2,
        "pending": 0,
        "running": 0,
        "failed": 1,
        "rate": "67%",
        "rows": 3,
    }
    (failure,) = report["failures_by_cause"]
    assert (failure["stage"], failure["cause"], failure["times"]) == (
        "staged_files",
        "CellInvalid",
        1,
    )
    assert failure["months"] == "2024-03"
    assert "'much' cannot be kept exactly" in failure["last"]
    times = {row["stage"]: row["times"] for row in report["times"]}
    assert times == {"manifest": 4, "staged_files": 3, "billing_table": 3, "parquet": 3}
    (restarts,) = report["restarts"]
    assert (restarts["runs"], restarts["succeeded"], restarts["failed"]) == (5, 4, 1)
    assert restarts["begun_again_after_a_failure"] == 0

    deliver(project.put, "2024-03", [items("2024-03", "7")], version="v2")
    loaded("state", "reset-failed")
    shown = loaded("state", "report")
    assert "Failures by cause" in shown and "CellInvalid" in shown
    page = loaded("state", "report", "--format", "html")
    assert page.startswith("<!doctype html>")
    assert "'much' cannot be kept exactly" in html.unescape(page)
    report = json.loads(loaded("state", "report", "--json"))
    assert report["progress"][0]["rate"] == "100%"
    assert report["restarts"][0]["begun_again_after_a_failure"] == 1

    deliver(project.put, "2024-04", [items("2024-04", "1")], version="v1")
    report = json.loads(loaded("state", "report", "--format", "json"))
    assert [report["progress"][0][name] for name in ("months", "complete", "pending")] == [4, 3, 1]
    project.source.rename(project.folder / "gone")
    shown = loaded("state", "report", code=1)
    assert "acme  failed: " in shown
    assert "100%" in shown, "what is loaded is counted, whatever the vendor says"


@pytest.mark.thorough
def test_a_report_is_titled_by_the_project(project: Project, loaded: Finops) -> None:
    (project.folder / "named.toml").write_text(SETTINGS + '[project]\nname = "Acme & Sons"\n')
    page = loaded("state", "report", "--format", "html", "-c", "named.toml")
    assert "<title>Acme &amp; Sons</title>" in page
    assert "<h1>Acme &amp; Sons</h1>" in page
    assert loaded("-c", "named.toml", "state", "report").startswith("Acme & Sons\n")


@pytest.mark.thorough
def test_what_nobody_needs_is_deleted_and_nothing_that_a_month_stands_on(
    project: Project, loaded: Finops
) -> None:
    staged = project.folder / "data/staging/acme"
    assert loaded("state", "cleanup") == "there is nothing to delete\n"
    damage(project, "UPDATE finops_state.manifests SET loaded_at = '2020-01-01'")
    for path in staged.rglob("*"):
        os.utime(path, (time.time() - YEAR, time.time() - YEAR))
    would = loaded.json("state", "cleanup", "--dry-run")
    assert [(row["what"], row["which"]) for row in would] == [
        ("staged files", "data/staging/acme/2024-02/v2"),
        ("staged files", "data/staging/acme/2024-01/v1"),
        ("superseded version", "acme 2024-02 v1"),
    ]
    assert loaded.json("state", "cleanup", "--dry-run") == would
    assert loaded.json("state", "cleanup") == would
    assert loaded("state", "cleanup") == "there is nothing to delete\n"
    assert sorted(path.name for path in staged.glob("*/v?")) == ["v1"], "the month that failed"
    assert project.query("SELECT manifest_id FROM finops_state.manifests ORDER BY 1") == [
        ("v1",),
        ("v2",),
    ]

    runs = {row["which"] for row in loaded.json("state", "cleanup", "--older-than", "0h")}
    history = project.folder / ".dagster/history/runs"
    assert len(runs) == 2, "the first runs of both months, as later ones said their last"
    assert not any((history / f"{run}.db").exists() for run in runs)
    assert loaded.json("state", "list", "--failed") != []
    assert loaded("state", "verify").startswith("all agree\n")
    said = loaded("aws", "run-pipeline", "--end-date", "2024-02")
    assert said.count("unchanged") == 2
    assert "'soon' is no age such as 30d" in loaded(
        "state", "cleanup", "--older-than", "soon", code=2
    )


@pytest.mark.thorough
def test_state_moves_to_another_machine_with_its_data(project: Project, loaded: Finops) -> None:
    name = "state.yaml"
    assert loaded("state", "export", name) == f"{name}: 1 exports, 5 runs\n"
    assert loaded.here("state", "export", "state.json").exit_code == 0
    as_json, as_yaml = (read(Path(file)) for file in ("state.json", name))
    assert as_json.model_copy(update={"exported_at": as_yaml.exported_at}) == as_yaml
    shutil.rmtree(project.folder / ".dagster")
    shutil.rmtree(project.folder / "data/staging")
    damage(
        project,
        "DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'",
        "DROP TABLE finops_state.runs",
    )
    refused = loaded("state", "import", name, code=1).splitlines()
    assert refused == [
        "months taken over: 2",
        "acme 2024-03  refused: manifest was v1, but nothing whole is here",
    ]
    assert loaded("state", "verify").startswith("all agree\n")
    held = [(row["month"], row["parquet"], row["last_run"]) for row in loaded.json("state", "list")]
    assert held == [("2024-02", "v2", "success"), ("2024-01", "v1", "success")]
    assert project.query(
        "SELECT billing_month::VARCHAR, manifest_id, state FROM finops_state.manifests ORDER BY ALL"
    ) == [
        ("2024-01-01", "v1", "loaded"),
        ("2024-02-01", "v1", "superseded"),
        ("2024-02-01", "v2", "loaded"),
    ]
    assert project.query("SELECT DISTINCT decimals_rounded FROM finops_state.manifests") == [([],)]
    (stage, *_) = loaded.json("state", "show", "acme", "2024-02")
    assert stage["version"] == "v2"
    assert loaded("aws", "run-pipeline", "--end-date", "2024-02").count("unchanged") == 2
    assert loaded("state", "import", name, code=1).startswith("months taken over: 2")


@pytest.mark.thorough
def test_an_empty_machine_takes_over_nothing(
    project: Project, loaded: Finops, tmp_path: Path
) -> None:
    loaded("state", "export", "state.json")
    shutil.rmtree(project.folder / ".dagster")
    shutil.rmtree(project.folder / "data")
    refused = loaded("state", "import", "state.json", code=1)
    assert refused.startswith("months taken over: 0\n")
    assert "acme 2024-01  refused: parquet was v1, but nothing whole is here" in refused
    assert loaded("state", "verify").startswith("all agree\n")
    assert loaded.json("state", "list") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "state.json is not what finops state export writes: finops_dagster: Field required"),
        ("[]", "state.json is not what finops state export writes: "),
        ("{", "state.json cannot be read: "),
        (None, "state.json cannot be read: "),
    ],
)
def test_what_is_no_export_of_state_is_one_line(
    project: Project, text: str | None, said: str
) -> None:
    if text is not None:
        (project.folder / "state.json").write_text(text)
    with pytest.raises(BillError) as caught:
        read(Path("state.json"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_a_line_and_an_exit_code(finops: Finops) -> None:
    assert "ends in .json, .yaml" in finops("state", "export", "state.txt", code=1)


@pytest.mark.thorough
def test_a_ledger_that_is_damaged_is_made_again_from_the_data(
    project: Project, loaded: Finops
) -> None:
    recorded = (
        "SELECT * EXCLUDE (loaded_at, load_number, lake_sha256) FROM finops_state.manifests "
        "ORDER BY ALL"
    )
    before = project.query(recorded)
    damage(project, "ALTER TABLE finops_state.manifests DROP COLUMN total_cost")
    failed = loaded("aws", "run-pipeline", "--end-date", "2024-01", code=1)
    assert "finops_state.manifests is damaged: it has no column total_cost" in failed
    found = loaded.json("state", "verify")
    assert {row["mend"] for row in found} == {"finops state verify --mend"}
    said = loaded("state", "verify", "--mend").splitlines()
    assert said == [
        "acme 2024-02  the ledger has v2 again",
        "acme 2024-01  the ledger has v1 again",
    ]
    assert loaded("state", "verify").startswith("all agree\n")
    assert project.query(recorded) == [row for row in before if "loaded" in row]


def test_what_differs_is_mended_by_one_word(project: Project, loaded: Finops) -> None:
    damage(
        project,
        "DELETE FROM aws_billing_data WHERE billing_month = DATE '2024-01-01' "
        "AND lineitem_unblendedcost = 2",
    )
    project.parquet("2024-02").unlink()
    said = loaded("state", "verify", "--mend")
    assert "acme 2024-01  exported  v1  2 rows  3.00" in said
    assert "acme 2024-02  exported  v2  1 rows  4.00" in said
    assert loaded("state", "verify").startswith("all agree\n")


@pytest.mark.thorough
def test_one_export_is_exported_alone(project: Project, loaded: Finops) -> None:
    second = SETTINGS.replace('"acme"', '"other"').replace("aws_billing_data", "other")
    (project.folder / "two.toml").write_text(SETTINGS + second)
    printed = loaded("-c", "two.toml", "state", "export", "one.json", "acme")
    document = read(project.folder / "one.json")
    assert [export.name for export in document.exports] == ["acme"]
    assert printed == f"one.json: 1 exports, {len(document.runs)} runs\n"
    assert len(document.runs) == 5
    loaded("-c", "two.toml", "state", "export", "other.json", "other")
    assert read(project.folder / "other.json").runs == []
    assert "the settings have acme, other" in loaded(
        "-c", "two.toml", "state", "export", "none.json", "nope", code=1
    )
    assert not (project.folder / "none.json").exists()


@pytest.mark.thorough
def test_imports_cleanups_and_repairs_are_recorded_with_who_and_when(
    project: Project, loaded: Finops
) -> None:
    assert loaded("state", "changes") == "nothing was changed by hand\n"
    before = datetime.now(UTC).replace(microsecond=0)
    loaded("state", "export", "state.json")
    shutil.rmtree(project.folder / ".dagster")
    damage(project, "DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'")
    loaded("state", "import", "state.json")
    damage(project, "DELETE FROM finops_state.manifests WHERE billing_month = '2024-01-01'")
    loaded("state", "verify", "--mend")
    loaded("state", "cleanup", "--older-than", "0h", "--dry-run")
    loaded("state", "cleanup", "--older-than", "0h", LOGNAME="somebody-else", USER="nobody")
    newest, *_ = changes = loaded.json("state", "changes")
    assert [change["command"] for change in changes] == [
        "state cleanup",
        "state verify --mend",
        "state import",
    ]
    assert {change["user"] for change in changes} == {pwd.getpwuid(os.getuid()).pw_name}
    times = [datetime.fromisoformat(change["at"]) for change in changes]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= before
    assert "staged files data/staging/acme/2024-02/v2" in newest["changes"]
    assert changes[1]["changes"] == ["acme 2024-01  the ledger has v1 again"]
    assert [line.partition(":")[0] for line in changes[2]["changes"]] == [
        "acme 2024-01",
        "acme 2024-02",
        "acme 2024-03",
    ]
    assert "state verify --mend" in loaded("state", "changes")


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["data/finops.duckdb", "data/months/{month}.duckdb"])
def test_the_months_that_are_loaded_are_listed_by_the_ledgers_word(
    project: Project, finops: Finops, path: str
) -> None:
    where = ["--database-config", f"database_path={path}"]
    assert finops("state", "loaded", *where) == "no month is loaded\n"
    for month in MONTHS[:2]:
        deliver(project.put, month, [items(month, "1", "2")], version="v1")
    finops.here("aws", "run-pipeline", *where)
    deliver(project.put, "2024-01", [items("2024-01", "4")], version="v2")
    finops.here("aws", "run-pipeline", *where)
    rows = finops.json("state", "loaded", "acme", *where)
    assert [(row["month"], row["version"], row["rows"], row["table"]) for row in rows] == [
        ("2024-02", "v1", 2, "aws_billing_data"),
        ("2024-01", "v2", 1, "aws_billing_data"),
    ]
    beyond = ["--database-config", "warehouse_path=data/warehouse.duckdb", *where]
    assert finops.json("state", "loaded", *beyond) == []
    finops.here("aws", "load-billing-remote", "--end-date", "2024-01", *beyond)
    (row,) = finops.json("state", "loaded", *beyond)
    assert (row["month"], row["version"]) == ("2024-01", "v2")
    assert "warehouse" in row["table"]
