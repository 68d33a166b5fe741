"""The `finops` command as a person calls it: in a process of its own, its output looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from finops_dagster.cli.app import app
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import SETTINGS, Project
from finops_dagster_tests.servers.bigquery import BigQueryServer


def test_a_pipeline_is_planned_run_and_shown(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "1.5", "2")], version="v1")
    planned = finops.json("aws", "run-pipeline", "--dry-run")
    every_stage = "manifest, staged_files, billing_table, parquet"
    assert [(row["month"], row["would_run"]) for row in planned] == [
        ("2024-02", every_stage),
        ("2024-01", every_stage),
    ]
    assert not (project.folder / "data").exists()

    first = finops("aws", "run-pipeline", "--export", "acme").splitlines()
    assert [line.rpartition("  ")[0] for line in first] == [
        "acme 2024-02  exported  v1  2 rows  3.50",
        "acme 2024-01  exported  v1  2 rows  3.50",
    ]
    assert project.totals("2024-02") == (2, 3.5)

    deliver(project.put, "2024-02", [items("2024-02", "4")], version="v2")
    found = finops.json("aws", "discover-manifests")
    assert [(row["month"], row["version"], row["loaded"]) for row in found] == [
        ("2024-02", "v2", "older: v1"),
        ("2024-01", "v1", "yes"),
    ]
    again = finops("aws", "run-pipeline")
    assert "acme 2024-01  unchanged  v1" in again
    assert "acme 2024-02  exported  v2  1 rows  4.00" in again
    state = finops.json("aws", "show-state")
    assert [(row["month"], row["parquet"], row["rows"], row["last_run"]) for row in state] == [
        ("2024-02", "v2", 1, "success"),
        ("2024-01", "v1", 2, "success"),
    ]


@pytest.mark.thorough
def test_each_command_goes_as_far_as_its_stage(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    staged = project.folder / "data/staging/acme/2024-01"
    files = [
        staged / "manifest.json",
        staged / "v1/acme-cur-00001.csv.gz",
        project.parquet("2024-01"),
    ]
    there: list[list[bool]] = []
    early = finops("aws", "export-parquet", code=1)
    assert early == (
        "acme  failed: no month of it is in billing_table; finops aws load-billing-local comes "
        "first\n"
    )
    for command in ("extract-manifests", "extract-billing", "load-billing-local", "export-parquet"):
        finops.here("aws", command, "--start-date", "2024-01", "--end-date", "2024-01")
        there.append([file.exists() for file in files])
        if command == "extract-billing":
            project.source.rename(project.folder / "gone")  # and no stage after asks the vendor
    assert there == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
        [True, True, True],
    ]
    assert project.totals("2024-01") == (1, 1)
    written = project.parquet("2024-01").stat().st_mtime_ns
    finops("aws", "export-parquet", "--overwrite")
    assert project.parquet("2024-01").stat().st_mtime_ns > written


def test_a_month_that_fails_is_said_and_the_others_go_on(project: Project, finops: Finops) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "much")], version="v1")
    deliver(project.put, "2024-02", [items("2024-02", "1")], version="v1")
    said = finops("aws", "run-pipeline", code=1)
    assert "acme 2024-01  failed: " in said
    assert "line 2, column \"lineItem/UnblendedCost\": 'much' cannot be kept exactly" in said
    assert "acme 2024-02  exported  v1" in said
    state = {row["month"]: row["last_run"] for row in finops.json("aws", "show-state")}
    assert state == {"2024-01": "failure", "2024-02": "success"}


@pytest.mark.thorough
def test_the_last_stage_is_a_warehouse_where_the_command_line_says_so(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    refused = finops("aws", "load-billing-remote", code=1)
    assert refused.startswith("backend is duckdb, which ends at Parquet; choose another with")
    with BigQueryServer() as server:
        where = ["--database-config", "project_id=acme"]
        where += ["--database-config", f"api_endpoint={server.url}"]
        said = finops("--backend", "bigquery", *where, "aws", "run-pipeline")
        assert "acme 2024-01  loaded  v1  1 rows  1.00" in said
        said = finops("--backend", "bigquery", *where, "aws", "load-billing-remote")
        assert "acme 2024-01  unchanged  v1  1 rows  1.00" in said
        reached = finops(*where, "config", "check", OPEN_FINOPS_DATABASE_BACKEND="bigquery")
        assert "BigQuery acme.finops" in reached


def test_the_lake_is_asked_by_table_and_only_read(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [items(month, "0.0000004")], version="v1")
        project.load(month)
    sql = "SELECT billing_month, lineitem_unblendedcost AS cost FROM aws_billing_data ORDER BY 1"
    assert finops.json("query", sql) == [
        {"billing_month": "2024-01-01", "cost": "0.0000004"},
        {"billing_month": "2024-02-01", "cost": "0.0000004"},
    ]
    many = finops("query", "SELECT a.* FROM aws_billing_data a, range(200)").splitlines()
    assert many[-1] == "the first 200 rows; say LIMIT, or --json for all"
    assert sum("0.0000004" in line for line in many) == 200
    target = project.folder / "stolen.csv"
    for other in (f"COPY (SELECT 1) TO '{target}'", "SELECT 1; SELECT 2", "DROP VIEW acme", ""):
        assert finops("query", other, code=1) == "a query is one SELECT; nothing else is run\n"
    assert not target.exists()
    missing = finops("query", "FROM nothing_here", code=1)
    assert missing.endswith("nothing_here does not exist! There is: aws_billing_data\n")


def test_a_query_that_meets_a_damaged_file_says_how_to_find_it(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    (file,) = (project.folder / "data").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-8])
    said = finops("query", "SELECT count(*) FROM aws_billing_data", code=1)
    assert said.endswith("a Parquet file is: finops state verify --deep\n")
    assert len(said.splitlines()) == 1


def test_the_settings_are_shown_with_what_gave_them(finops: Finops) -> None:
    rows = {row["setting"]: (row["value"], row["from"]) for row in finops.json("config")}
    assert rows["exports[0].name"] == ("acme", "finops.toml")
    assert rows["database.duckdb.memory_limit"] == ("2GB", "default")
    shown = finops("config", FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT="1GB")
    assert "FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT" in shown
    assert "command line" in finops("--database-config", "threads=1", "config")


def test_what_cannot_be_reached_is_a_line_and_an_exit_code(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], report="other")
    said = finops("config", "check", code=1)
    assert "acme has no manifest of" in said
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    assert "1 months, 2024-01 to 2024-01" in finops("config", "check")


def test_what_cannot_be_written_is_a_line_and_an_exit_code(
    project: Project, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    (project.folder / "a-file").write_bytes(b"")
    (project.folder / "a.folder").mkdir()
    places = {
        "storage.staging_dir": "a-file",
        "storage.parquet_dir": "a-file/lake",
        "database.duckdb.database_path": "a.folder",
        "database.duckdb.warehouse_path": "a-file/months/w.duckdb",
    }
    for key, place in places.items():
        monkeypatch.setenv(f"FINOPS_{key.replace('.', '__').upper()}", place)
    rows = {row["what"]: row["problem"] for row in finops.json("config", "check")}
    assert rows.pop("acme") == rows.pop("DAGSTER_HOME") == ""
    assert rows == {
        "storage.staging_dir": "a-file cannot be written: not a directory",
        "storage.parquet_dir": "a-file/lake cannot be written: not a directory",
        "duckdb": "a.folder cannot be written: is a directory",
        "warehouse": "a-file/months cannot be written: not a directory",
    }
    assert finops.here("config", "check").exit_code == 1
    assert not (project.folder / "data").exists()
    said = finops("config", "check", "--json", code=1, DAGSTER_HOME="/dev/null/history")
    assert "/dev/null/history cannot be written: not a directory" in said


def test_settings_without_an_export_say_so(project: Project, finops: Finops) -> None:
    (project.folder / "finops.toml").write_text("")
    problems = {row["what"]: row["problem"] for row in finops.json("config", "check")}
    assert problems.pop("exports") == (
        "no export is set: add an [[exports]] table, as finops config discover prints it"
    )
    assert set(problems.values()) == {""}
    assert finops.here("config", "check").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["aws", "show-state", "--start-date", "2024-13"], 2, "'2024-13' is not a month"),
        (["--database-config", "threads", "config"], 2, "it is given as KEY=VALUE"),
        (["aws", "unload"], 2, "No such command 'unload'"),
        (["aws", "show-state", "--export", "nope"], 1, "the settings have acme\n"),
        (["aws", "run-pipeline", "--end-date", "2020-01"], 1, "acme has no month from"),
        (["aws", "run-pipeline", "--export", "acme"], 1, "acme has no manifest of"),
        (["--config", "nope.toml", "config"], 1, "nope.toml: there is no such settings file"),
        (["--backend", "oracle", "config"], 1, "database.backend: 'oracle' is none of"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    finops: Finops, arguments: list[str], code: int, said: str
) -> None:
    assert said in finops(*arguments, code=code)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "other.toml", "config", "check"],
        ["--config", "other.toml", "config", "check"],
        ["config", "-c", "other.toml", "check"],
        ["config", "check", "-c", "other.toml"],
        ["-c", "missing.toml", "config", "check", "--config", "other.toml"],
    ],
)
def test_the_settings_file_is_named_before_or_after_the_command_and_the_later_wins(
    project: Project, finops: Finops, arguments: list[str]
) -> None:
    (project.folder / "other.toml").write_text(SETTINGS.replace('"acme"', '"other"'))
    assert finops.json(*arguments)[0]["what"] == "other"


def test_the_backend_and_its_values_are_named_before_or_after_the_command(finops: Finops) -> None:
    before = ["--backend", "sql", "--database-config", "project_id=acme"]
    after = ["--backend", "bigquery", "--database-config", "dataset=a"]
    rows = {row["setting"]: row["value"] for row in finops.json(*before, "config", *after)}
    chosen = {name: value for name, value in rows.items() if "bigquery" in (name + str(value))}
    assert chosen == {"database.backend": "bigquery", "database.bigquery.dataset": "a"} | {
        "database.bigquery.project_id": "acme",
        "database.bigquery.location": "US",
    }
    said = finops.here("config", "check", "--database-config", "threads")
    assert (said.exit_code, "it is given as KEY=VALUE" in said.output) == (2, True)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, and every group of them, as a person types it."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_help_is_short_and_has_an_example_and_the_options_of_every_command(
    finops: Finops, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = finops.here(*command, "-h").stdout
    assert finops.here(*command, "--help").stdout == said
    for option in ("--config", "-c", "--backend", "--database-config", "--help", "-h"):
        assert f" {option} " in said
    listed = said.rpartition(" Commands ")[2] if " Commands " in said else ""
    wrapped = [line for line in listed.splitlines() if line.startswith("│  ")]
    assert wrapped == [], "a command is one line of its group's help"
    if not listed or command == ("config",):
        assert f"Example: finops {' '.join(command)}" in " ".join(said.split())


def test_help_loads_no_engine() -> None:
    code = (
        "import sys; from finops_dagster.cli.app import app;"
        "print([m for m in ('dagster', 'duckdb', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_ledger_lake_and_vendor_know_is_told_without_dagster(
    project: Project, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    project.load("2024-01")
    for command in (
        ["aws", "discover-manifests"],
        ["aws", "run-pipeline", "--dry-run"],
        ["state", "loaded"],
        ["state", "list"],
        ["query", "FROM aws_billing_data"],
        ["config", "check"],
    ):
        code = (
            "import sys; from finops_dagster.cli.app import app;"
            f"app({command}, standalone_mode=False); print('dagster' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=finops.environment,
            capture_output=True,
            text=True,
        )
        assert done.stdout.endswith("False\n"), (command, done.stderr)


def test_the_version_is_that_of_the_package(finops: Finops) -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    number = finops("--version").split()[1]
    assert f'version = "{number}"' in project
