"""Replaced versions that the lake keeps: what a query of a day reads, what is cleaned up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake, footer_texts_of_version, replacing_lake_file
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

COST = "SELECT sum(cost) AS cost, count(*) AS months FROM aws_billing_data"


def write(lake: Lake, cost: int, day: str, month: str = "2024-01") -> None:
    """Write a month that was loaded on a day, without a pipeline."""
    with duckdb.connect() as connection:
        rows = Sql(f"SELECT {cost} AS cost")
        footer = {
            **footer_texts_of_version(LoadedVersion(f"v{cost}", Totals.from_result_row((1, cost)))),
            "loaded_at": f"{day}T23:59:59",
        }
        with replacing_lake_file(
            connection, rows, lake.file("acme", BillingMonth.parse(month)), footer
        ):
            pass


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.thorough)])
def keeping(
    request: pytest.FixtureRequest, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Lake]:
    """Return a function that sets how many versions are kept, and returns the lake."""
    address: dict[str, object] = {}
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        bucket = request.getfixturevalue("bucket")
        address = {"parquet_dir": f"s3://{bucket}/lake"}
        monkeypatch.setenv("FINOPS_STORAGE__PARQUET_DIR", f"s3://{bucket}/lake")
        monkeypatch.setenv("FINOPS_STORAGE__LAKE__ENDPOINT_URL", s3.url)

    def keep(versions: int) -> Lake:
        monkeypatch.setenv("FINOPS_STORAGE__LAKE__KEEP_VERSIONS", str(versions))
        lake = {"keep_versions": versions}
        if address:
            lake["endpoint_url"] = s3.url
        finops.project.storage = {**address, "lake": lake}
        return finops.project.settings().storage.open_lake()

    return keep


def cost_as_of(finops: Finops, day: str, sql: str = COST) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = finops.json("query", sql, "--as-of", day)
    return rows


def test_a_query_of_a_day_reads_the_versions_that_were_loaded_by_its_end(
    keeping: Callable[[int], Lake], finops: Finops
) -> None:
    lake = keeping(9)
    for cost, day in ((1, "2024-02-01"), (2, "2024-02-03"), (4, "2024-02-05")):
        write(lake, cost, day)
    write(lake, 8, "2024-02-04", "2024-02")
    answers = {"2024-02-01": 1, "2024-02-02": 1, "2024-02-03": 2, "2024-02-04": 10}
    for day, cost in {**answers, "2024-02-05": 12, "9999-12-31": 12}.items():
        (row,) = cost_as_of(finops, day)
        assert row == {"cost": cost, "months": 1 + (day >= "2024-02-04")}, day
    assert finops.json("query", COST) == [{"cost": 12, "months": 2}]
    # No month was loaded yet.
    error = finops("query", COST, "--as-of", "2024-01-31", code=1)
    assert "as no month is loaded" in error
    assert "--as-of" in finops("query", COST, "--as-of", "2024-02", code=2)


def test_the_charges_are_those_of_the_day(keeping: Callable[[int], Lake], finops: Finops) -> None:
    lake = focus_lake(keeping(1))
    write(lake, 1, "2024-02-01")
    write(lake, 2, "2024-02-03")
    sql = "SELECT sum(cost) AS cost FROM focus"
    assert cost_as_of(finops, "2024-02-02", sql) == [{"cost": 1}]
    assert cost_as_of(finops, "2024-02-03", sql) == [{"cost": 2}]


def test_charges_that_were_derived_after_their_bill_are_not_taken_for_absent_ones(
    keeping: Callable[[int], Lake], finops: Finops
) -> None:
    lake = keeping(1)
    write(lake, 1, "2024-02-01")
    write(focus_lake(lake), 1, "2024-02-05")
    assert cost_as_of(finops, "2024-02-05") == [{"cost": 1, "months": 1}]
    for day in ("2024-02-01", "2024-02-04"):
        assert "name 2024-02-05 or" in finops("query", COST, "--as-of", day, code=1)
    assert "as no month is loaded" in finops("query", COST, "--as-of", "2024-01-31", code=1)


def test_a_day_whose_versions_are_not_kept_is_an_error_that_names_the_first_day_that_is(
    keeping: Callable[[int], Lake], finops: Finops
) -> None:
    lake = keeping(1)
    for cost, day in ((1, "2024-02-01"), (2, "2024-02-03"), (4, "2024-02-05")):
        write(lake, cost, day)
    lake = keeping(0)
    write(lake, 8, "2024-02-07")  # Its predecessor is not kept, though older ones are.
    lake = keeping(1)
    write(lake, 16, "2024-02-09")
    assert cost_as_of(finops, "2024-02-08") == [{"cost": 8, "months": 1}]
    for day in ("2024-02-06", "2024-02-03", "2024-01-31"):
        error = finops("query", COST, "--as-of", day, code=1)
        assert error.startswith(f"the lake lacks a version of {day}: ")
        assert "name 2024-02-07 or a later day" in error
        assert error.count("\n") == 1


def test_cleanup_deletes_what_is_beyond_the_setting_and_nothing_else(
    keeping: Callable[[int], Lake], finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finops_dagster.cli.cleanup._LONGEST_USE", timedelta(days=-1))
    lake = keeping(3)
    for cost, day in ((1, "2024-02-01"), (2, "2024-02-03"), (4, "2024-02-05"), (8, "2024-02-07")):
        write(lake, cost, day)
    keeping(2)
    first = finops.json("state", "cleanup")
    assert {row["what"] for row in first} == {"replaced file"}
    assert finops.json("state", "cleanup") == []
    assert cost_as_of(finops, "2024-02-03") == [{"cost": 2, "months": 1}]
    assert "name 2024-02-03 or" in finops("query", COST, "--as-of", "2024-02-02", code=1)
    keeping(0)
    assert finops.json("state", "cleanup")
    assert finops.json("query", COST) == [{"cost": 8, "months": 1}]
    assert "name 2024-02-07 or" in finops("query", COST, "--as-of", "2024-02-06", code=1)


@pytest.mark.thorough
def test_a_load_keeps_the_version_that_it_replaces_where_a_glob_does_not_find_it(
    project: Project,
) -> None:
    project.storage = {"lake": {"keep_versions": 2}}
    for version, costs in {"v1": ["1"], "v2": ["1", "2"], "v3": ["1", "2", "4"]}.items():
        project.deliver(*costs, version=version)
        project.load()
    path = project.parquet_path()
    (total,) = duckdb.sql(
        f"SELECT count(*), sum(lineitem_unblendedcost) "
        f"FROM read_parquet('{path.parents[1]}/*/*.parquet', hive_partitioning = false)"
    ).fetchall()
    assert total == (3, 7)
    files = Path(path.parent, "versions").iterdir()
    sums = (duckdb.sql(f"SELECT sum(lineitem_unblendedcost) FROM '{file}'") for file in files)
    kept = {rows.fetchall()[0] for rows in sums}
    assert kept == {(1,), (3,)}


def test_what_a_file_of_an_earlier_release_has_replaced_is_not_known(finops: Finops) -> None:
    project = finops.project
    path = project.parquet_path()
    path.parent.mkdir(parents=True)
    duckdb.sql("SELECT 1 AS cost").write_parquet(str(path))
    file = project.settings().storage.open_lake().file("acme", BillingMonth.parse("2024-01"))
    written = f"{file.written_at():%Y-%m-%d}"
    assert cost_as_of(finops, written) == [{"cost": 1, "months": 1}]
    assert f"name {written} or" in finops("query", COST, "--as-of", "2020-01-01", code=1)
