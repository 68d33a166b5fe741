"""What the program before wrote is read and carried on: its history, ledger, lake, staging folder
and warehouses, as they lie in old_data/ (made by old_data/make.py)."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from finops_dagster.cli.app import app
from finops_dagster_tests.cur import HEADERS, deliver, folder_put, line_item
from finops_dagster_tests.warehouses.adapters import Adapter, started
from finops_dagster_tests.warehouses.duckdb import DuckDB
from finops_dagster_tests.warehouses.postgresql import PASSWORD
from finops_dagster_tests.warehouses.sql_sqlite import SQLite

OLD_DATA = Path(__file__).parent / "old_data"
# The ledger of the first had no list of a version's files, no number of the load, no rounding.
FIRST, LAST = "2026-11-21", "2026-11-25"
MONTHS = {
    ("acme", "2024-01"): ("v1", 2, Decimal("1.500000000000000001")),
    ("acme", "2024-02"): ("v2", 2, Decimal(17)),
    ("acme", "2024-03"): ("v1", 1, Decimal("-0.25")),
    ("beta", "2024-01"): ("e1", 3, Decimal("29.3700008")),
}
TABLE, COST = "aws_billing_data", "lineitem_unblendedcost"
LOWER, UPPER = "resourceTags/user:team", "resourceTags/user:Team"
TAGS = ("resourcetags_user_team", "resourcetags_user_team_9515dbf8")


class OldProject:
    """The project of an archive, carried on by commands."""

    def __init__(self, folder: Path, made_on: str) -> None:
        self.folder, self.made_on = folder, made_on
        with tarfile.open(OLD_DATA / f"{made_on}.tar.xz") as archive:
            archive.extractall(folder, filter="data")

    def finops(self, *arguments: str) -> Result:
        """A command, which must succeed."""
        settings = {"FINOPS_CONFIG": "finops.toml", "DAGSTER_HOME": f"{self.folder}/.dagster"}
        result = CliRunner(env=settings).invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.finops(*arguments, "--json").stdout)
        return rows

    def run(self, *arguments: str) -> dict[tuple[str, ...], str]:
        """What a command that runs months did with each of them."""
        lines = [line.split("  ") for line in self.finops(*arguments).stdout.splitlines()]
        return {tuple(line[0].split()): line[1] for line in lines}

    def spoil_source(self) -> None:
        """Give the bucket's files other bytes under the same size and time: whoever reads one of
        them fails."""
        for path in (self.folder / "source").rglob("*"):
            if path.suffix in (".gz", ".parquet"):
                status = path.stat()
                path.write_bytes(bytes(status.st_size))
                os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def deliver_next_version(self) -> None:
        """Restate January, which now has both spellings of the tag."""
        row = line_item("2024-01", **{LOWER: "red", UPPER: "blue", "lineItem/UnblendedCost": "4"})
        put = folder_put(self.folder / "source")
        deliver(put, "2024-01", [[row]], version="v2", headers=(*HEADERS, LOWER, UPPER))


@pytest.fixture(params=[pytest.param(FIRST, marks=pytest.mark.thorough), LAST])
def old(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> OldProject:
    monkeypatch.chdir(tmp_path)
    return OldProject(tmp_path, request.param)


def test_what_was_loaded_is_shown_and_agrees(old: OldProject) -> None:
    shown = {
        (row["export"], row["month"]): (row["parquet"], row["rows"], Decimal(row["cost"]))
        for row in old.json("state", "list")
    }
    assert shown == MONTHS
    assert {row["status"] for row in old.json("aws", "show-state", "--runs")} == {"success"}
    stages = old.json("state", "show", "acme", "2024-02")
    assert {row["version"] for row in stages} == {"v2"}
    assert old.finops("state", "verify", "--deep").stdout == "all agree\n"
    costs = old.json("query", f"SELECT sum({COST}) AS cost FROM {TABLE}")
    assert Decimal(costs[0]["cost"]) == sum(
        cost for (export, _), (*_, cost) in MONTHS.items() if export == "acme"
    )


@pytest.mark.thorough
def test_an_unchanged_month_is_not_downloaded_again(old: OldProject) -> None:
    if old.made_on == FIRST:  # its staged files have no checksums, so they are fetched once more
        shutil.rmtree("data/staging")
    old.spoil_source()
    lake = [(path, path.stat().st_mtime_ns) for path in Path("data/parquet").rglob("*.parquet")]
    assert old.run("aws", "run-pipeline") == dict.fromkeys(MONTHS, "unchanged")
    shutil.rmtree("data/staging", ignore_errors=True)
    assert set(old.run("aws", "run-pipeline", "--end-date", "2024-01").values()) == {"unchanged"}
    assert [(path, path.stat().st_mtime_ns) for path, _ in lake] == lake
    assert old.finops("state", "verify").stdout == "all agree\n"


def test_staged_files_are_loaded_again_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the first program have no checksums, and are downloaded again."""
    monkeypatch.chdir(tmp_path)
    old = OldProject(tmp_path, LAST)
    old.spoil_source()
    Path("data/finops.duckdb").unlink()
    assert old.run("aws", "run-pipeline", "--end-date", "2024-01").keys() == {
        ("acme", "2024-01"),
        ("beta", "2024-01"),
    }
    assert old.finops("state", "verify", "acme", "2024-01", "--deep").stdout == "all agree\n"


def test_a_restatement_replaces_what_was_loaded(old: OldProject) -> None:
    old.deliver_next_version()
    ran = old.run("aws", "run-pipeline", "--export", "acme", "--end-date", "2024-01")
    assert ran == {("acme", "2024-01"): "exported"}
    query = f"SELECT billing_month, {COST} AS cost, {', '.join(TAGS)} FROM {TABLE} ORDER BY 1, 2"
    rows = [(row["billing_month"][:7], *row.values()) for row in old.json("query", query)]
    assert [(row[0], Decimal(row[2]), *row[3:]) for row in rows] == [
        ("2024-01", 4, "red", "blue"),
        ("2024-02", 8, None, "red"),
        ("2024-02", 9, None, "red"),
        ("2024-03", Decimal("-0.25"), "red", None),
    ]
    assert old.finops("state", "verify", "--deep").stdout == "all agree\n"


@contextmanager
def duckdb(old: OldProject) -> Iterator[Adapter]:
    yield DuckDB(old.folder / "warehouse.duckdb")


@contextmanager
def sql(old: OldProject) -> Iterator[Adapter]:
    yield SQLite(old.folder)


@contextmanager
def postgresql(old: OldProject) -> Iterator[Adapter]:
    with started("postgresql") as adapter:
        loader = {"host": adapter.settings["host"], "user": "loader", "password": PASSWORD}
        with psycopg.connect(dbname="acme", **loader) as connection:
            connection.execute((old.folder / "postgresql.sql").read_text())
        yield adapter


@pytest.mark.parametrize(
    "warehouse",
    [duckdb, *(pytest.param(each, marks=pytest.mark.thorough) for each in (sql, postgresql))],
)
def test_a_warehouse_is_carried_on_in_place(
    old: OldProject, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse(old) as adapter:
        for name, value in adapter.environment.items():
            monkeypatch.setenv(name, value)
        given = adapter.settings.items()
        values = [part for key, value in given for part in ("--database-config", f"{key}={value}")]
        backend = ("--backend", adapter.backend, *values)
        others = ("2024-02", "2024-03")
        before = {month: adapter.rows(TABLE, (COST, *TAGS), month) for month in others}
        load = (*backend, "aws", "load-billing-remote")
        assert old.run(*load) == dict.fromkeys(MONTHS, "unchanged")
        old.deliver_next_version()
        january = ("--export", "acme", "--end-date", "2024-01")
        ran = old.run(*backend, "aws", "run-pipeline", *january)
        assert ran == {("acme", "2024-01"): "loaded"}
        assert adapter.rows(TABLE, (COST, *TAGS), "2024-01") == [(Decimal(4), "red", "blue")]
        for month, rows in before.items():
            assert adapter.rows(TABLE, (COST, *TAGS), month) == rows
        assert [row[:4] for row in adapter.ledger(TABLE)[-2:]] == [
            ("2024-02", "v2", 2, "loaded"),
            ("2024-01", "v2", 1, "loaded"),
        ]
        assert old.finops(*backend, "state", "verify").stdout == "all agree\n"


def test_a_month_stays_whose_files_are_deleted_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first program's lake does not list a version's files; cleanup and the vendor delete
    them."""
    monkeypatch.chdir(tmp_path)
    old = OldProject(tmp_path, FIRST)
    shutil.rmtree("data/staging")
    for path in [*Path("source").rglob("*.gz"), *Path("source").rglob("*.parquet")]:
        path.unlink()
    january = ("--end-date", "2024-01")
    kept = dict.fromkeys([("acme", "2024-01"), ("beta", "2024-01")], "unchanged")
    assert old.run("aws", "run-pipeline", *january) == kept
    (staged,) = [
        row
        for row in old.json("state", "show", "acme", "2024-01")
        if row["stage"] == "staged_files"
    ]
    assert staged["version"] == "v1"
    assert old.run("aws", "run-pipeline", *january) == kept
