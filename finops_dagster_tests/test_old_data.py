"""The data of earlier releases is read and carried on.

The archives in old_data/, which old_data/make.py made, have their history, ledger, lake, staging
folder and warehouses.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.warehouses.adapters import Adapter, running_adapter
from finops_dagster_tests.warehouses.duckdb import DuckDB
from finops_dagster_tests.warehouses.postgresql import PASSWORD
from finops_dagster_tests.warehouses.sql_sqlite import SQLite

OLD_DATA = Path(__file__).parent / "old_data"
# The ledger of the first has no list of files, no number of the load, and no rounding.
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


class OldProject(Finops):
    """The project of an archive, on which commands run."""

    def __init__(self, project: Project, made_on: str) -> None:
        super().__init__(project)
        self.made_on = made_on
        with tarfile.open(OLD_DATA / f"{made_on}.tar.xz") as archive:
            archive.extractall(project.folder, filter="data")

    def outcomes(self, *arguments: str) -> dict[tuple[str, ...], str]:
        """Run a command over months, and return the outcome of each by export and month."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        lines = [line.split("  ") for line in result.stdout.splitlines()]
        return {tuple(line[0].split()): line[1] for line in lines}

    def assert_all_agree(self, *arguments: str) -> None:
        assert self(*arguments, "state", "verify", "--deep").startswith("all agree\n")

    def overwrite_source_files(self) -> None:
        """Overwrite the vendor's files under the same size and time, so that reading one fails."""
        for path in self.project.source.rglob("*"):
            if path.suffix in (".gz", ".parquet"):
                status = path.stat()
                path.write_bytes(bytes(status.st_size))
                os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def deliver_next_version(self) -> None:
        """Restate January, with both spellings of the tag."""
        row = line_item("2024-01", **{LOWER: "red", UPPER: "blue", "lineItem/UnblendedCost": "4"})
        self.project.deliver([row], version="v2", headers=(*HEADERS, LOWER, UPPER))


@pytest.fixture(params=[pytest.param(FIRST, marks=pytest.mark.thorough), LAST])
def old(request: pytest.FixtureRequest, project: Project) -> OldProject:
    return OldProject(project, request.param)


def test_loaded_months_are_shown_and_verified(old: OldProject) -> None:
    listed = {
        (row["export"], row["month"]): (row["parquet"], row["rows"], Decimal(row["cost"]))
        for row in old.json("state", "list")
    }
    assert listed == MONTHS
    assert {row["status"] for row in old.json("aws", "show-state", "--runs")} == {"success"}
    stages = old.json("state", "show", "acme", "2024-02")
    assert {row["version"] for row in stages} == {"v2"}
    old.assert_all_agree()
    (total,) = old.json("query", f"SELECT sum({COST}) AS cost FROM {TABLE}")
    of_acme = (cost for (export, _), (*_, cost) in MONTHS.items() if export == "acme")
    assert Decimal(total["cost"]) == sum(of_acme)


@pytest.mark.thorough
def test_an_unchanged_month_is_not_downloaded_again(old: OldProject) -> None:
    if old.made_on == FIRST:  # its staged files have no checksums, so they are fetched once more
        shutil.rmtree("data/staging")
    old.overwrite_source_files()
    lake = [(path, path.stat().st_mtime_ns) for path in Path("data/parquet").rglob("*.parquet")]
    assert old.outcomes("aws", "run-pipeline") == dict.fromkeys(MONTHS, "unchanged")
    shutil.rmtree("data/staging", ignore_errors=True)
    assert set(old.outcomes("aws", "run-pipeline", "--end-date", "2024-01").values()) == {
        "unchanged"
    }
    assert [(path, path.stat().st_mtime_ns) for path, _ in lake] == lake
    assert old("state", "verify").startswith("all agree\n")


@pytest.mark.thorough
def test_staged_files_are_loaded_again_without_a_download(project: Project) -> None:
    """Those of the first release have no checksums, and are downloaded again."""
    old = OldProject(project, LAST)
    old.overwrite_source_files()
    Path("data/finops.duckdb").unlink()
    outcomes = old.outcomes("aws", "run-pipeline", "--end-date", "2024-01")
    assert outcomes.keys() == {("acme", "2024-01"), ("beta", "2024-01")}
    assert old("state", "verify", "acme", "2024-01", "--deep").startswith("all agree\n")


JANUARY = ("aws", "run-pipeline", "--export", "acme", "--end-date", "2024-01")


def test_a_restatement_replaces_the_loaded_month(old: OldProject) -> None:
    old.deliver_next_version()
    assert old.outcomes(*JANUARY) == {("acme", "2024-01"): "exported"}
    query = f"SELECT billing_month, {COST} AS cost, {', '.join(TAGS)} FROM {TABLE} ORDER BY 1, 2"
    rows = [tuple(row.values()) for row in old.json("query", query)]
    assert [(month[:7], Decimal(cost), *tags) for month, cost, *tags in rows] == [
        ("2024-01", 4, "red", "blue"),
        ("2024-02", 8, None, "red"),
        ("2024-02", 9, None, "red"),
        ("2024-03", Decimal("-0.25"), "red", None),
    ]
    costs = "replaced_id, sum(cost_before), sum(cost_after)"
    restated = old.project.query(f"SELECT {costs} FROM finops_state.restatements GROUP BY ALL")
    assert restated == [("v1", MONTHS["acme", "2024-01"][2], 4)]
    old.assert_all_agree()


@contextmanager
def warehouse_of(old: OldProject, name: str) -> Iterator[Adapter]:
    folder = old.project.folder
    if name == "duckdb":
        yield DuckDB(folder / "warehouse.duckdb")
    elif name == "sql":
        yield SQLite(folder)
    else:
        with running_adapter("postgresql") as adapter:
            loader = {"host": adapter.settings["host"], "user": "loader", "password": PASSWORD}
            with psycopg.connect(dbname="acme", **loader) as connection:
                connection.execute((folder / "postgresql.sql").read_text())
            yield adapter


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name",
    ["duckdb", "sql", "postgresql"],
)
def test_the_tables_of_a_warehouse_are_carried_on(
    old: OldProject, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse_of(old, name) as adapter:
        for variable, value in adapter.environment.items():
            monkeypatch.setenv(variable, value)
        settings = adapter.settings.items()
        values = [
            part for key, value in settings for part in ("--database-config", f"{key}={value}")
        ]
        backend = ("--backend", adapter.backend, *values)

        def rows(month: str) -> list[tuple[object, ...]]:
            return adapter.rows(TABLE, (COST, *TAGS), month)

        other_months = ("2024-02", "2024-03")
        rows_before = [rows(month) for month in other_months]
        loaded = old.outcomes(*backend, "aws", "load-billing-remote")
        assert loaded == dict.fromkeys(MONTHS, "unchanged")
        old.deliver_next_version()
        assert old.outcomes(*backend, *JANUARY) == {("acme", "2024-01"): "loaded"}
        assert rows("2024-01") == [(Decimal(4), "red", "blue")]
        assert [rows(month) for month in other_months] == rows_before
        assert [row[:4] for row in adapter.ledger(TABLE)[-2:]] == [
            ("2024-02", "v2", 2, "loaded"),
            ("2024-01", "v2", 1, "loaded"),
        ]
        assert old(*backend, "state", "verify").startswith("all agree\n")


@pytest.mark.thorough
def test_a_month_is_kept_when_its_files_are_deleted_everywhere(project: Project) -> None:
    """The first release's lake lists no files of a version, and they can be deleted everywhere.

    Cleanup deletes the staged files, and the vendor its own.
    """
    old = OldProject(project, FIRST)
    shutil.rmtree("data/staging")
    for path in [*Path("source").rglob("*.gz"), *Path("source").rglob("*.parquet")]:
        path.unlink()
    run = ("aws", "run-pipeline", "--end-date", "2024-01")
    expected = dict.fromkeys([("acme", "2024-01"), ("beta", "2024-01")], "unchanged")
    assert old.outcomes(*run) == expected
    _, staged, *_ = old.json("state", "show", "acme", "2024-01")
    assert (staged["stage"], staged["version"]) == ("staged_files", "v1")
    assert old.outcomes(*run) == expected
