"""The commands of `finops`: what they print, their options, and their help."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from pytest import MonkeyPatch

from finops_dagster.cli.app import app
from finops_dagster_tests import azure
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, SETTINGS, STAGES, Project


def test_a_pipeline_is_planned_run_and_shown(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("1.5", "2", month=month)
    plan = finops.json("aws", "run-pipeline", "--dry-run")
    assert [(row["month"], row["would_run"]) for row in plan] == [
        ("2024-02", ", ".join(STAGES)),
        ("2024-01", ", ".join(STAGES)),
    ]
    assert finops("state", "loaded") == "no month is loaded\n"
    assert not (project.folder / "data").exists()

    lines = finops("aws", "run-pipeline", "--export", "acme").splitlines()
    assert [line.rpartition("  ")[0] for line in lines] == [
        "acme 2024-02  exported  v1  2 rows  3.50",
        "acme 2024-01  exported  v1  2 rows  3.50",
    ]
    assert project.totals("2024-01") == project.totals("2024-02") == (2, 3.5)

    project.deliver("4", month="2024-02", version="v2")
    manifests = finops.json("aws", "discover-manifests")
    assert [(row["month"], row["version"], row["loaded"]) for row in manifests] == [
        ("2024-02", "v2", "older: v1"),
        ("2024-01", "v1", "yes"),
    ]
    printed = finops("aws", "run-pipeline")
    assert "acme 2024-01  unchanged  v1" in printed
    assert "acme 2024-02  exported  v2  1 row  4.00" in printed
    assert (project.totals("2024-01"), project.totals("2024-02")) == ((2, 3.5), (1, 4))
    for options, would_run in ((), "nothing: unchanged"), (("--force",), ", ".join(STAGES)):
        plan = finops.json("aws", "run-pipeline", "--dry-run", *options)
        assert [row["would_run"] for row in plan] == [would_run, would_run]
    loaded = finops.json("state", "loaded", "acme")
    assert [(row["month"], row["version"], row["rows"], row["table"]) for row in loaded] == [
        ("2024-02", "v2", 1, "aws_billing_data"),
        ("2024-01", "v1", 2, "aws_billing_data"),
    ]
    state = finops.json("aws", "show-state")
    assert [(row["month"], row["parquet"], row["rows"], row["last_run"]) for row in state] == [
        ("2024-02", "v2", 1, "success"),
        ("2024-01", "v1", 2, "success"),
    ]


@pytest.mark.thorough
def test_each_command_runs_up_to_its_stage(project: Project, finops: Finops) -> None:
    project.deliver("1")
    staged = project.folder / "data/staging/acme/2024-01"
    files = [staged / "manifest.json", staged / "v1/acme-cur-00001.csv.gz", project.parquet_path()]
    assert finops("aws", "export-parquet", code=1) == (
        "acme  failed: the stage billing_table has none of the selected months; run finops aws "
        "load-billing-local first\n"
    )
    for command, expected in {
        "extract-manifests": [True, False, False],
        "extract-billing": [True, True, False],
        "load-billing-local": [True, True, False],
        "export-parquet": [True, True, True],
    }.items():
        finops("aws", command, "--start-date", "2024-01", "--end-date", "2024-01")
        assert [file.exists() for file in files] == expected
        if command == "extract-billing":
            project.source.rename(project.folder / "gone")  # no later stage needs the vendor
    assert project.totals() == (1, 1)
    modified = project.parquet_path().stat().st_mtime_ns
    finops("aws", "export-parquet", "--overwrite")
    assert project.parquet_path().stat().st_mtime_ns > modified


def test_query_reads_the_lake_by_table_and_cannot_write(project: Project, finops: Finops) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver("0.0000004", month=month)
        project.load(month)
    sql = "SELECT billing_month, lineitem_unblendedcost AS cost FROM aws_billing_data ORDER BY 1"
    assert finops.json("query", sql) == [
        {"billing_month": f"{month}-01", "cost": "0.0000004"} for month in ("2024-01", "2024-02")
    ]
    lines = finops("query", "SELECT a.* FROM aws_billing_data a, range(200)").splitlines()
    assert lines[-1] == "only the first 200 rows are shown; use --format csv or json for all"
    assert sum("0.0000004" in line for line in lines) == 200
    target = project.folder / "stolen.csv"
    for statement in (f"COPY (SELECT 1) TO '{target}'", "SELECT 1; SELECT 2", "DROP VIEW acme", ""):
        refused = finops("query", statement, code=1)
        assert refused.startswith("the query is not one SELECT, and was not run; write")
    assert not target.exists()
    missing, *_ = finops("query", "FROM nothing_here", code=1).splitlines()
    assert missing.endswith("The tables are: aws_billing_data, accounts")

    project.parquet_path().write_bytes(project.parquet_path().read_bytes()[:-8])
    damaged = finops("query", "SELECT count(*) FROM aws_billing_data", code=1)
    assert damaged.endswith("a Parquet file is damaged: run finops state verify --deep\n")
    assert len(damaged.splitlines()) == 1


def test_settings_are_shown_with_their_origin(finops: Finops, monkeypatch: MonkeyPatch) -> None:
    rows = {row["setting"]: (row["value"], row["from"]) for row in finops.json("config")}
    assert rows["exports[0].name"] == ("acme", "finops.toml")
    assert rows["database.duckdb.memory_limit"] == ("2GB", "default")
    monkeypatch.setenv("FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT", "1GB")
    assert "FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT" in finops("config")
    assert "command line" in finops("--database-config", "threads=1", "config")
    monkeypatch.setenv("FINOPS_DATABASE__DUCKDB", '{"memory_limit": "3GB", "threads": 1}')
    export = {"name": "x", "vendor": "aws", "source": "file://x", "export_name": "x"}
    monkeypatch.setenv("FINOPS_EXPORTS", json.dumps([{**export, "start_month": "2024-01"}]))
    origins = {row["setting"]: row["from"] for row in finops.json("config")}
    assert origins["database.duckdb.threads"] == "FINOPS_DATABASE__DUCKDB"
    assert origins["database.duckdb.memory_limit"] == "FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT"
    assert origins["exports[0].name"] == "FINOPS_EXPORTS"
    assert origins["exports[0].table"] == "default"


def problems(finops: Finops) -> dict[str, str]:
    """Return the problem of each export, folder and database in `finops config check`."""
    by_name = {row["what"]: row["problem"] for row in finops.json("config", "check")}
    assert finops.run("config", "check").exit_code == any(by_name.values())
    return by_name


def test_config_check_reports_what_cannot_be_reached(project: Project, finops: Finops) -> None:
    project.deliver("1", export_name="other")
    assert "acme has no manifest of" in problems(finops)["acme"]
    project.deliver("1")
    assert set(problems(finops).values()) == {""}
    assert "1 month, 2024-01 to 2024-01" in finops("config", "check")
    (project.folder / "finops.toml").write_text("")
    without_exports = problems(finops)
    assert without_exports.pop("exports") == (
        "finops.toml has no export: add an [[exports]] block, which finops config discover "
        "SOURCE prints"
    )
    assert set(without_exports.values()) == {""}


def test_config_check_says_which_costs_of_azure_have_no_focus(
    project: Project, finops: Finops
) -> None:
    settings = ""
    for format_, dataset in {"actual": "ActualCost", "focus": "FocusCost"}.items():
        azure.deliver(project.put, azure.Run(dataset=dataset, export=format_), azure.costs("1"))
        settings += (
            f"[[exports]]\nname = 'contoso-{format_}'\nvendor = 'azure'\nformat = '{format_}'\n"
            "source = 'file://source'\nstart_month = '2024-01'\n"
        )
    (project.folder / "finops.toml").write_text(settings)
    answers = {row["what"]: row["answer"] for row in finops.json("config", "check")}
    assert answers["contoso-focus"] == "1 month, 2024-01 to 2024-01"
    assert answers["contoso-actual"] == answers["contoso-focus"] + (
        "; no FOCUS charges: they need actual and amortized costs, joined by amortized_from"
    )


def test_config_check_reports_what_cannot_be_written(
    project: Project, finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    project.deliver("1")
    (project.folder / "a-file").write_bytes(b"")
    (project.folder / "a.folder").mkdir()
    for key, path in {
        "STORAGE__STAGING_DIR": "a-file",
        "STORAGE__PARQUET_DIR": "a-file/lake",
        "DATABASE__DUCKDB__DATABASE_PATH": "a.folder",
        "DATABASE__DUCKDB__WAREHOUSE_PATH": "a-file/months/w.duckdb",
    }.items():
        monkeypatch.setenv(f"FINOPS_{key}", path)
    advice = "; allow writing there, or set another path"
    assert {name: problem.removesuffix(advice) for name, problem in problems(finops).items()} == {
        "acme": "",
        "DAGSTER_HOME": "",
        "storage.staging_dir": "a-file cannot be written: not a directory",
        "storage.parquet_dir": "a-file/lake cannot be written: not a directory",
        "duckdb": "a.folder cannot be written: is a directory",
        "warehouse": "a-file/months cannot be written: not a directory",
    }
    assert not (project.folder / "data").exists()
    monkeypatch.setenv("DAGSTER_HOME", "/dev/null/history")
    assert problems(finops)["DAGSTER_HOME"] == (
        f"/dev/null/history cannot be written: not a directory{advice}"
    )


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("aws show-state --start-date 2024-13", 2, "'2024-13' is not a month"),
        ("--database-config threads config", 2, "must be KEY=VALUE"),
        ("config check --database-config threads", 2, "must be KEY=VALUE"),
        ("aws unload", 2, "No such command 'unload'"),
        ("aws show-state --export nope", 1, "finops.toml has no export 'nope'; name one of these"),
        ("azure show-state --export acme", 1, 'vendor = "aws", not "azure"; use finops aws\n'),
        (
            "aws show-state --start-date 2024-05 --end-date 2024-01",
            1,
            "--end-date 2024-01 is before --start-date 2024-05; exchange them\n",
        ),
        ("aws load-billing-remote", 1, "the backend duckdb has no warehouse; choose another"),
        (
            "aws run-pipeline --end-date 2020-01",
            1,
            "acme has no month in the selected range; choose",
        ),
        ("aws run-pipeline --export acme", 1, "acme has no manifest of"),
        ("--config nope.toml config", 1, "nope.toml: the settings file does not exist"),
        ("--backend oracle config", 1, "database.backend: 'oracle' is not one of"),
        ("state export state.txt", 1, "another suffix than .json, .jsonl, .yaml"),
        ("state export missing/state.json", 1, "the folder missing does not exist; create it, or"),
        ("state cleanup --older-than soon", 2, "'soon' is not an age; write it as 12h"),
    ],
)
def test_a_mistake_is_one_line(finops: Finops, command: str, code: int, message: str) -> None:
    result = finops.run(*command.split())
    assert result.exit_code == code
    assert message in result.output
    assert code == 2 or len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "-c other.toml config check",
        "--config other.toml config check",
        "config -c other.toml check",
        "config check -c other.toml",
        "-c missing.toml config check --config other.toml",
    ],
)
def test_the_settings_file_is_an_option_before_or_after_the_command(
    project: Project, finops: Finops, command: str
) -> None:
    (project.folder / "other.toml").write_text(SETTINGS.replace('"acme"', '"other"'))
    assert finops.json(*command.split())[0]["what"] == "other"


def test_the_backend_and_its_settings_are_options_before_or_after_the_command(
    finops: Finops,
) -> None:
    before = ["--backend", "sql", "--database-config", "project_id=acme"]
    after = ["--backend", "bigquery", "--database-config", "dataset=a"]
    rows = {row["setting"]: row["value"] for row in finops.json(*before, "config", *after)}
    bigquery = {name: value for name, value in rows.items() if "bigquery" in f"{name}{value}"}
    assert bigquery == {
        "database.backend": "bigquery",
        "database.bigquery.dataset": "a",
        "database.bigquery.project_id": "acme",
        "database.bigquery.location": "US",
        "database.bigquery.load_from_lake": True,
    }


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every group and command."""
    yield path
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from commands(subcommand, (*path, name))


def test_help_has_a_short_option_before_and_after_a_command(finops: Finops) -> None:
    assert finops("-h") == finops("--help")
    assert finops("state", "show", "-h") == finops("state", "show", "--help")


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_help_is_short_and_has_examples(
    finops: Finops, command: tuple[str, ...], monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = finops(*command, "--help")
    not_listed = {
        ("init",): {"--backend", "--database-config"},
        ("demo",): {"--config", "-c", "--backend", "--database-config"},
    }.get(command, set())
    for option in ("--config", "-c", "--backend", "--database-config", "--help", "-h"):
        assert (re.search(rf" {option}[ ,]", text) is None) == (option in not_listed)
    assert max(map(len, text.splitlines())) <= 80
    _, _, listed = text.partition("\nCommands:\n")
    entries = [line for line in listed.partition("\n\n")[0].splitlines() if line]
    assert all(re.match(r"  [a-z-]+ +[A-Z].*\.$", line) for line in entries), "one line a command"
    if not listed or command == ("config",):
        assert re.search(rf"\n  Examples?:\n    finops {' '.join(command)}", text)


WITHOUT_DAGSTER = [
    *("aws discover-manifests", "aws run-pipeline --dry-run", "state loaded", "state list"),
    *("query 'FROM aws_billing_data'", "config check"),
]


def test_commands_that_need_no_history_do_not_import_dagster(
    project: Project, finops: Finops
) -> None:
    project.deliver("1")
    project.load()
    engines = ("dagster", "duckdb", "pyarrow", "pydantic")
    code = f"""if True:
        import sys
        from finops_dagster.cli.app import app
        assert not [name for name in {engines} if name in sys.modules]
        for command in {list(map(shlex.split, WITHOUT_DAGSTER))}:
            try:
                app(command)
            except SystemExit as end:
                assert end.code == 0, command
            assert "dagster" not in sys.modules, command
    """
    subprocess.run([sys.executable, "-c", code], env=finops.environment, check=True)


@pytest.mark.parametrize("command", ["discover-manifests", "run-pipeline --dry-run"])
def test_a_month_that_failed_was_found(project: Project, finops: Finops, command: str) -> None:
    project.deliver("1")
    for manifest in project.folder.rglob("*-Manifest.json"):
        manifest.write_text("{")
    failed = finops("aws", *command.split(), code=1)
    assert failed.startswith("acme 2024-01  failed: ")
    assert "no months found" not in failed


def test_every_vendor_has_its_commands(project: Project, finops: Finops) -> None:
    code = (
        "from finops_dagster.sources import VENDORS; VENDORS['northwind'] = VENDORS['aws'];"
        "from finops_dagster.cli.app import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "northwind", "show-state"],
        cwd=project.folder,
        env=finops.environment,
        capture_output=True,
        text=True,
    )
    assert result.stderr.startswith("finops.toml has no export of northwind: ")


def test_the_printed_version_is_that_of_the_package(finops: Finops) -> None:
    number = finops("--version").split()[1]
    assert f'version = "{number}"' in (ROOT / "pyproject.toml").read_text()
