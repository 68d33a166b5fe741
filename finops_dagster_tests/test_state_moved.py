"""`finops state report`, `cleanup`, `export`, `import`, `changes`, and a ledger that is rebuilt."""

import html
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import psutil
import pytest
import yaml

from finops_dagster.cli.changes import change_rows, logging_changes
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.pipeline.instance import open_instance
from finops_dagster.pipeline.observations import StageChange, record_observations
from finops_dagster_tests.finops import Finops, older_document
from finops_dagster_tests.project import ROOT, SETTINGS, STAGES, Project

YEAR = 365 * 24 * 3600
# Python imports this module in each process of an import.
FAILS_WHILE_IT_RESTORES = """
import os, signal
from finops_dagster.billing.errors import CellInvalid
from finops_dagster.tables import ledger
from finops_dagster.warehouses.month_file import WarehouseUnavailable

restore = ledger.restore_superseded_loads


def restore_and_fail(*arguments):
    restore(*arguments)
    {fault}


ledger.restore_superseded_loads = restore_and_fail
"""


@pytest.fixture(scope="module")
def loaded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Load three months without charges: the second was restated, and the third failed."""
    folder = tmp_path_factory.mktemp("loaded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key in list(MAPPINGS):
            patch.delitem(MAPPINGS, key)
        project = Project(folder)
        finops = Finops(project)
        for month in ("2024-01", "2024-02"):
            project.deliver("1", "2", month=month)
        finops("aws", "run-pipeline")
        project.deliver("4", month="2024-02", version="v2")
        project.deliver("much", month="2024-03")
        finops("aws", "run-pipeline", code=1)
    return folder


@pytest.fixture
def loaded(project: Project, finops: Finops, loaded_folder: Path) -> Finops:
    """Return a project with a copy of the loaded folder."""
    shutil.copytree(loaded_folder, project.folder, dirs_exist_ok=True)
    return finops


@pytest.mark.thorough
def test_a_report_has_progress_failures_and_restarts(project: Project, loaded: Finops) -> None:
    report = loaded.json("state", "report")
    counts = {"months": 3, "complete": 2, "pending": 0, "running": 0, "failed": 1}
    assert report["progress"] == [{"export": "acme", **counts, "rate": "67%", "rows": 3}]
    (failure,) = report["failures_by_cause"]
    assert "'much' cannot be kept exactly" in failure.pop("last")
    cause = {"stage": "staged_files", "cause": "CellInvalid", "times": 1, "months": "2024-03"}
    assert failure.items() >= cause.items()
    times = {row["stage"]: row["times"] for row in report["times"]}
    assert times == {"manifest": 4, "staged_files": 3, "billing_table": 3, "parquet": 3}
    (restarts,) = report["restarts"]
    assert (restarts["runs"], restarts["succeeded"], restarts["failed"]) == (4, 3, 1)
    assert restarts["begun_again_after_a_failure"] == 0

    project.deliver("7", month="2024-03", version="v2")
    loaded("state", "reset-failed")
    shown = loaded("state", "report")
    assert "Failures by cause" in shown and "CellInvalid" in shown
    page = loaded("state", "report", "--format", "html")
    assert page.startswith("<!doctype html>")
    assert "'much' cannot be kept exactly" in html.unescape(page)
    report = loaded.json("state", "report")
    assert report["progress"][0]["rate"] == "100%"
    assert report["restarts"][0]["begun_again_after_a_failure"] == 1

    (project.folder / "named.toml").write_text(SETTINGS + '[project]\nname = "Acme & Sons"\n')
    page = loaded("state", "report", "--format", "html", "-c", "named.toml")
    assert "<title>Acme &amp; Sons</title>" in page
    assert "<h1>Acme &amp; Sons</h1>" in page
    assert loaded("-c", "named.toml", "state", "report").startswith("Acme & Sons\n")

    project.deliver("1", month="2024-04")
    (progress,) = loaded.json("state", "report")["progress"]
    assert [progress[name] for name in ("months", "complete", "pending")] == [4, 3, 1]
    project.source.rename(project.folder / "gone")
    shown = loaded("state", "report", code=1)
    assert "acme  failed: " in shown
    assert "100%" in shown, "what is loaded is counted, whatever the vendor says"


@pytest.mark.thorough
def test_cleanup_deletes_nothing_that_a_month_needs(project: Project, loaded: Finops) -> None:
    staged = project.folder / "data/staging/acme"
    assert loaded("state", "cleanup") == "nothing to delete\n"
    project.execute("UPDATE finops_state.manifests SET loaded_at = '2020-01-01'")
    for path in staged.rglob("*"):
        os.utime(path, (time.time() - YEAR, time.time() - YEAR))
    planned = loaded.json("state", "cleanup", "--dry-run")
    assert [(row["what"], row["which"]) for row in planned] == [
        ("staged files", "data/staging/acme/2024-02/v2"),
        ("staged files", "data/staging/acme/2024-01/v1"),
        ("superseded version", "acme 2024-02 v1"),
    ]
    assert loaded.json("state", "cleanup", "--dry-run") == planned
    assert loaded.json("state", "cleanup") == planned
    assert loaded("state", "cleanup") == "nothing to delete\n"
    assert sorted(path.name for path in staged.glob("*/v?")) == ["v1"], "the month that failed"
    assert sorted(project.ledger("manifest_id")) == [("v1",), ("v2",)]

    runs = {row["which"] for row in loaded.json("state", "cleanup", "--older-than", "0h")}
    history = project.folder / ".dagster/history/runs"
    assert len(runs) == 1, "the first run of the restated month, as a later one is the latest"
    assert not any((history / f"{run}.db").exists() for run in runs)
    assert loaded.json("state", "list", "--failed") != []
    assert loaded("state", "verify").startswith("all agree\n")
    assert loaded("aws", "run-pipeline", "--end-date", "2024-02").count("unchanged") == 2


@pytest.mark.thorough
def test_state_moves_to_another_machine_with_its_data(project: Project, loaded: Finops) -> None:
    assert loaded("state", "export", "state.yaml") == "state.yaml: 1 export, 4 runs\n"
    loaded("state", "export", "state.json")
    as_yaml = list(yaml.safe_load_all(Path("state.yaml").read_text()))
    records = list(map(json.loads, Path("state.json").read_text().splitlines()))
    assert as_yaml[1:] == records[1:], "only the time of the export differs"
    assert [record["kind"] for record in (*records[:3], records[-1])] == [
        *("file", "export", "month"),
        "end",
    ]
    shutil.rmtree(project.folder / ".dagster")
    shutil.rmtree(project.folder / "data/staging")
    recorded = "SELECT * EXCLUDE lake_sha256 FROM finops_state.manifests ORDER BY ALL"
    before = project.query(recorded)
    project.execute(
        "DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'",
        "DROP TABLE finops_state.runs",
    )
    assert loaded("state", "import", "state.yaml", code=1).splitlines() == [
        "months imported: 2",
        "acme 2024-03  refused: manifest has v1 in the file, but no complete month in the data"
        "; run finops state reprocess acme 2024-03",
    ]
    assert loaded("state", "verify").startswith("all agree\n")
    months = [
        (row["month"], row["parquet"], row["last_run"]) for row in loaded.json("state", "list")
    ]
    assert months == [("2024-02", "v2", "success"), ("2024-01", "v1", "success")]
    assert len(before) == 3
    assert project.query(recorded) == before, "every sum of money is restored too"
    (stage, *_) = loaded.json("state", "show", "acme", "2024-02")
    assert stage["version"] == "v2"
    assert loaded("aws", "run-pipeline", "--end-date", "2024-02").count("unchanged") == 2

    Path("older.json").write_text(json.dumps(older_document(records), indent=1))
    project.execute("DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'")
    printed = loaded("state", "import", "older.json", code=1)
    assert printed.startswith("months imported: 2")
    assert len(project.query(recorded)) == 3

    shutil.rmtree(project.folder / ".dagster")
    shutil.rmtree(project.folder / "data")
    refused = loaded("state", "import", "state.json", code=1)
    assert refused.startswith("months imported: 0\n"), "a machine without data imports nothing"
    assert (
        "acme 2024-01  refused: parquet has v1 in the file, but no complete month in the data"
        in refused
    )
    assert loaded("state", "verify").startswith("all agree\n")
    assert loaded.json("state", "list") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "state.json was not written by finops state export: finops_dagster: Field required"),
        ("[]", "state.json was not written by finops state export: Input should be"),
        ("{", "state.json cannot be read: "),
        ('{"kind":"file"}', "state.json was not written by finops state export: file.finops_dag"),
        ('{"kind":"run"', "state.json cannot be read: Invalid JSON: EOF while parsing"),
        (None, "state.json cannot be read: No such file or directory; name the file that finops"),
    ],
)
def test_a_file_that_is_no_state_is_one_line(
    finops: Finops, text: str | None, message: str
) -> None:
    if text is not None:
        Path("state.json").write_text(text)
    refused = finops("state", "import", "state.json", code=1)
    assert message in refused
    assert len(refused.splitlines()) == 1


@pytest.mark.thorough
def test_a_file_that_is_cut_short_changes_nothing(project: Project, loaded: Finops) -> None:
    loaded("state", "export", "state.jsonl")
    project.execute("DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'")
    lines = Path("state.jsonl").read_text().splitlines(keepends=True)
    Path("state.jsonl").write_text("".join(lines[:-1]))
    refused = loaded("state", "import", "state.jsonl", code=1)
    assert refused.startswith("state.jsonl is cut short: its last record is missing; ")
    assert project.ledger("manifest_id") == [("v2",)]
    assert not Path("state.jsonl.part").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "the process that restores the ledgers from state.json has ended too early with exit "
            "code -9",
        ),
        ("raise CellInvalid('cost', 'a cost is wrong')", "a cost is wrong\n"),
        ("raise WarehouseUnavailable('closed')", "closed; run the same command again later\n"),
        ("raise RuntimeError('once\\nagain')", "RuntimeError: once (unexpected error: report it"),
    ],
    ids=["killed", "error", "unavailable", "unexpected"],
)
def test_an_import_that_fails_within_its_transaction_changes_nothing(
    project: Project,
    loaded: Finops,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: str,
    message: str,
) -> None:
    loaded("state", "export", "state.json")
    project.execute("DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'")
    (tmp_path / "sitecustomize.py").write_text(FAILS_WHILE_IT_RESTORES.format(fault=fault))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
        failed = loaded("state", "import", "state.json", code=1)
    assert failed.startswith(message)
    assert len(failed.splitlines()) == 1
    assert project.ledger("manifest_id") == [("v2",)]
    assert loaded("state", "changes") == "no changes yet\n"
    errors = project.folder / ".dagster/finops_errors.log"
    assert errors.exists() == ("RuntimeError" in fault), "the trace of an unexpected error"
    assert loaded("state", "import", "state.json") == "months imported: 3\n"
    assert len(project.ledger("manifest_id")) == 3


@pytest.mark.thorough
def test_ctrl_c_ends_both_processes_of_an_import(project: Project, loaded: Finops) -> None:
    loaded("state", "export", "state.json")
    with duckdb.connect(str(project.database_file)):
        command = loaded.start("state", "import", "state.json")
        assert command.stderr is not None
        assert command.stderr.readline().endswith("; waiting for it\n")
        (child,) = psutil.Process(command.pid).children()
        for process in (command, child):
            process.send_signal(signal.SIGINT)  # as a terminal does
        printed = command.communicate()
    assert (printed, command.returncode) == (("", ""), 130)
    assert not child.is_running()


@pytest.mark.thorough
def test_a_damaged_ledger_is_rebuilt_from_the_data(project: Project, loaded: Finops) -> None:
    columns = "* EXCLUDE (load_number, lake_sha256)"
    before = project.ledger(columns)
    loaded("state", "export", "state.json")
    project.execute("ALTER TABLE finops_state.manifests DROP COLUMN total_cost")
    failed = loaded("aws", "run-pipeline", "--end-date", "2024-01", code=1)
    assert "finops_state.manifests is damaged: it has no column total_cost" in failed
    assert "it has no column total_cost" in loaded("state", "import", "state.json", code=1)
    differences = loaded.json("state", "verify")
    assert {row["repair"] for row in differences} == {"finops state verify --repair"}
    assert loaded("state", "verify", "--repair").splitlines() == [
        "acme 2024-02  restored in the ledger: v2",
        "acme 2024-01  restored in the ledger: v1",
    ]
    assert loaded("state", "verify").startswith("all agree\n")
    loads = {str(row[:2]): row for row in before if "loaded" in row}
    assert {str(row[:2]): row for row in project.ledger(columns)} == loads


@pytest.mark.thorough
def test_one_export_is_exported_alone(project: Project, loaded: Finops) -> None:
    second = SETTINGS.replace('"acme"', '"other"').replace("aws_billing_data", "other")
    (project.folder / "two.toml").write_text(SETTINGS + second)
    export = ("-c", "two.toml", "state", "export")
    assert loaded(*export, "one.json", "acme") == "one.json: 1 export, 4 runs\n"
    kinds = [json.loads(line)["kind"] for line in Path("one.json").read_text().splitlines()]
    assert (kinds.count("export"), kinds.count("run")) == (1, 4)
    loaded(*export, "other.json", "other")
    assert '"kind":"run"' not in Path("other.json").read_text()
    assert "name one of these: acme, other" in loaded(*export, "none.json", "nope", code=1)
    assert not Path("none.json").exists()


def test_an_import_refuses_an_export_that_the_settings_lack_and_says_to_add_it(
    project: Project, finops: Finops
) -> None:
    project.deliver("1")
    finops("aws", "run-pipeline")
    finops("state", "export", "state.json")
    other = SETTINGS.replace('"acme"', '"other"')
    azure = SETTINGS.replace('"aws"', '"azure"').replace('"cur1"', '"focus"')
    azure = "\n".join(line for line in azure.splitlines() if "export_name" not in line)
    absent = (
        "mine.toml has no export 'acme'; add an [[exports]] block with name = \"acme\" and "
        'vendor = "aws", and run the same command again'
    )
    for settings, message in (
        (other, absent),
        ("", absent),
        (azure, "mine.toml: the export 'acme' has vendor = \"azure\", but \"aws\" in the file; "
                "correct its vendor, or import another file"),
    ):  # fmt: skip
        (project.folder / "mine.toml").write_text(settings)
        printed = finops("-c", "mine.toml", "state", "import", "state.json", code=1)
        assert printed == f"months imported: 0\nacme  refused: {message}\n"


def test_an_import_says_whether_the_data_is_newer_than_the_file(
    project: Project, finops: Finops
) -> None:
    data, old = project.folder / "data", project.folder / "old"
    project.deliver("1")
    finops("aws", "run-pipeline")
    finops("state", "export", "old.json")
    shutil.copytree(data, old)
    project.deliver("2", version="v2")
    finops("aws", "run-pipeline")
    finops("state", "export", "new.json")
    assert finops("state", "import", "old.json", code=1).splitlines() == [
        "months imported: 0",
        *(
            f"acme 2024-01  refused: {stage} has v1 in the file, but v2 in the data; nothing needs "
            "to be done, as the data is newer than the file"
            for stage in STAGES
        ),
    ]
    shutil.rmtree(data)
    old.rename(data)
    assert finops("state", "import", "new.json", code=1).splitlines()[1:] == [
        f"acme 2024-01  refused: {stage} has v2 in the file, but v1 in the data; run finops state "
        "reprocess acme 2024-01"
        for stage in STAGES
    ]
    project.parquet_path().unlink()
    lost = "parquet has v2 in the file, but no complete month in the data; run finops state reproc"
    assert lost in finops("state", "import", "new.json", code=1)


def observations(export: str, stage: str) -> list[dg.AssetObservation]:
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_observations(dg.AssetKey([export, stage]), limit=50).records
    return [record.asset_observation for record in records if record.asset_observation]


def test_what_a_command_changed_in_a_stage_is_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    change = StageChange("acme", "staged_files", "2024-02", "Deleted: staged files v1.")
    record_observations([change], {"command": "state cleanup"})
    assert list(tmp_path.iterdir()) == [], "no event log is created"
    with open_instance():
        pass
    with logging_changes("state cleanup") as changes:
        changes.add("staged files v1", change)
        changes.add("run 1")
    (observation,) = observations("acme", "staged_files")
    assert (observation.partition, observation.description) == (change.month, change.text)
    metadata = {name: value.value for name, value in observation.metadata.items()}
    (logged,) = change_rows()
    assert metadata == {name: logged[name] for name in ("command", "user", "host")}
    assert logged["changes"] == ["staged files v1", "run 1"]


@pytest.mark.thorough
def test_changes_are_logged(
    project: Project, loaded: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded("state", "changes") == "no changes yet\n"
    before = datetime.now(UTC).replace(microsecond=0)
    loaded("state", "export", "state.json")
    shutil.rmtree(project.folder / ".dagster")
    project.execute("DELETE FROM finops_state.manifests WHERE manifest_id = 'v1'")
    loaded.run("state", "import", "state.json")
    project.execute("DELETE FROM finops_state.manifests WHERE billing_month = '2024-01-01'")
    loaded("state", "verify", "--repair")
    loaded("state", "cleanup", "--older-than", "0h", "--dry-run")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "nobody")
    loaded("state", "cleanup", "--older-than", "0h")
    cleaned, repaired, imported = changes = loaded.json("state", "changes")
    commands = ["state cleanup", "state verify --repair", "state import"]
    assert [change["command"] for change in changes] == commands
    assert {change["user"] for change in changes} == {pwd.getpwuid(os.getuid()).pw_name}
    times = [datetime.fromisoformat(change["at"]) for change in changes]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= before
    assert "staged files data/staging/acme/2024-02/v2" in cleaned["changes"]
    assert repaired["changes"] == ["acme 2024-01  restored in the ledger: v1"]
    assert [line.partition(":")[0] for line in imported["changes"]] == [
        f"acme 2024-0{number}" for number in (3, 2, 1)
    ]
    assert "state verify --repair" in loaded("state", "changes")
    monkeypatch.setenv("DAGSTER_HOME", str(project.folder / ".dagster"))
    observed = [
        (key, observation.partition, observation.metadata["command"].value)
        for key in ("staged_files", "billing_table")
        for observation in observations("acme", key)
    ]
    assert sorted(observed) == [
        ("billing_table", "2024-01", "state import"),
        ("billing_table", "2024-01", "state verify --repair"),
        ("billing_table", "2024-02", "state cleanup"),
        ("billing_table", "2024-02", "state import"),
        ("staged_files", "2024-01", "state cleanup"),
        ("staged_files", "2024-02", "state cleanup"),
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["export", "import"])
def test_the_process_with_dagster_imports_neither_pyarrow_nor_a_client_of_a_store(
    loaded: Finops, command: str
) -> None:
    loaded("state", "export", "state.json")
    code = """if True:
        import sys
        from finops_dagster.cli.app import app
        try:
            app(["state", sys.argv[1], "state.json"])
        except SystemExit as end:
            assert end.code == 0
        assert "dagster" in sys.modules
        assert not {"pyarrow", "numpy", "boto3"} & sys.modules.keys()
    """
    folder = loaded.project.folder
    subprocess.run(
        [sys.executable, "-c", code, command], cwd=folder, env=loaded.environment, check=True
    )
