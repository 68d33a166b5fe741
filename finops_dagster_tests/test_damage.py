"""Damage in every place that holds a month is found, and the command that is named repairs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from finops_dagster.lake import read_record
from finops_dagster_tests.cur import HEADERS, deliver, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

MONTH = "2024-01"
BLENDED, QUANTITY = "lineItem/BlendedCost", "lineItem/UsageAmount"


@pytest.fixture
def loaded(project: Project, finops: Finops) -> Finops:
    """A month of 500 line items, loaded."""
    rows = [
        line_item(
            MONTH,
            identity__LineItemId=f"{number * 7919 % 10007:x}" * 5,
            lineItem__UnblendedCost=f"0.{number}",
            lineItem__BlendedCost=f"0.{number}",
        )
        for number in range(1, 501)
    ]
    deliver(
        project.put,
        MONTH,
        [rows[:250], rows[250:]],
        headers=(*HEADERS, BLENDED, QUANTITY),
        types={BLENDED: "BigDecimal", QUANTITY: "BigDecimal"},
    )
    finops.here("aws", "run-pipeline")
    return finops


def overwrite(path: Path, size: int = 4_000) -> None:
    """Write over the middle of a file, which keeps its size and its time."""
    times, whole = path.stat(), path.read_bytes()
    middle = (len(whole) - size) // 2
    path.write_bytes(whole[:middle] + bytes(size) + whole[middle + size :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def change_table(project: Project, change: str) -> None:
    """Change one row of the table by hand."""
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute(
            f"UPDATE aws_billing_data SET {change} WHERE lineitem_unblendedcost = 0.7"
        )


def change_parquet(project: Project, column: str, change: Callable[[pa.Array], pa.Array]) -> None:
    """Write the month's file anew by hand, with another column and the footer that it had."""
    path = project.parquet(MONTH)
    rows = pq.read_table(path)
    at = rows.schema.get_field_index(column)
    changed = rows.set_column(at, rows.schema.field(at), change(rows[column]))
    pq.write_table(changed, path, compression="zstd")
    assert read_record(path)


def staged(project: Project, name: str = "acme-cur-00001.csv.gz") -> Path:
    """A staged file of the month."""
    (path,) = (project.folder / "data/staging/acme" / MONTH).glob(f"*/{name}")
    return path


def a_service(project: Project) -> None:
    change_table(project, "lineitem_productcode = 'AmazonEC3'")


def a_quantity(project: Project) -> None:
    change_table(project, "lineitem_usageamount = 0.700000000000000001")


def a_cell_that_is_emptied(project: Project) -> None:
    change_table(project, "bill_payeraccountid = NULL")


def pages(project: Project) -> None:
    overwrite(project.parquet(MONTH))


def a_cell_in_parquet(project: Project) -> None:
    replaced = pc.replace_substring
    change_parquet(
        project, "lineitem_productcode", lambda names: replaced(names, "AmazonEC2", "AmazonEC3")
    )


def other_bytes_of_the_same_cells(project: Project) -> None:
    change_parquet(project, "lineitem_productcode", lambda names: names)


def staged_bytes(project: Project) -> None:
    overwrite(staged(project), 20)


def a_staged_file_is_gone(project: Project) -> None:
    staged(project).unlink()


def a_staged_file_is_cut(project: Project) -> None:
    path = staged(project)
    path.write_bytes(path.read_bytes()[:-1])


def a_staged_manifest(project: Project) -> None:
    path = project.folder / "data/staging/acme" / MONTH / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


ONLY = f"--export acme --start-date {MONTH} --end-date {MONTH}"
REPROCESS = f"finops state reprocess acme {MONTH}"
RUN = f"finops aws run-pipeline {ONLY}"
FETCH = f"finops aws extract-billing {ONLY} --force"
DAMAGES = [
    (a_service, "differ in lineitem_productcode; the file is as it was written", REPROCESS),
    (a_quantity, "differ in lineitem_usageamount; the file is as it was written", REPROCESS),
    (pages, f"{MONTH}.parquet", RUN),
    (staged_bytes, "has other bytes than when it was fetched", FETCH),
    (a_staged_file_is_gone, "00001.csv.gz is gone", FETCH),
]
MORE_DAMAGES = [
    (a_cell_that_is_emptied, "differ in bill_payeraccountid", REPROCESS),
    (a_cell_in_parquet, "differ in lineitem_productcode; the file is not as it was written", RUN),
    (other_bytes_of_the_same_cells, "is not as it was written, though its cells are", RUN),
    (a_staged_file_is_cut, "bytes, and had", FETCH),
    (a_staged_manifest, "manifest.json is damaged", FETCH),
]


@pytest.mark.parametrize(
    "damages", [DAMAGES, pytest.param(MORE_DAMAGES, marks=pytest.mark.thorough)]
)
def test_damage_is_found_by_reading_all_and_repaired_by_the_command_that_is_named(
    loaded: Finops, damages: list[tuple[Callable[[Project], None], str, str]]
) -> None:
    before = cells(loaded.project)
    for damage, says, command in damages:
        damage(loaded.project)
        assert loaded.json("state", "verify") == [], "what only --deep finds"
        (row,) = loaded.json("state", "verify", "--deep")
        assert says in row["what_differs"]
        assert row["mend"] == command
        done = loaded.here(*command.split()[1:])
        assert done.exit_code == 0, done.output
        assert loaded.json("state", "verify", "--deep") == []
        assert cells(loaded.project) == before


def test_any_column_of_money_is_held_against_the_ledger(loaded: Finops) -> None:
    change_table(loaded.project, "lineitem_blendedcost = 0.700000000000000001")
    (row,) = loaded.json("state", "verify")
    assert "but the table does not hold its rows" in row["what_differs"]
    assert row["mend"] == REPROCESS


def cells(project: Project) -> list[list[tuple[object, ...]]]:
    """All cells of the table and of the Parquet file."""
    ordered = "ORDER BY ALL"
    parquet = f"read_parquet('{project.parquet(MONTH)}', hive_partitioning = false)"
    return [
        project.query(f"FROM aws_billing_data {ordered}"),
        duckdb.sql(f"FROM {parquet} {ordered}").fetchall(),
    ]


@pytest.mark.thorough
def test_all_damage_is_repaired_at_once(loaded: Finops) -> None:
    before = cells(loaded.project)
    for damage in (pages, a_service, staged_bytes):
        damage(loaded.project)
    assert len(loaded.json("state", "verify", "--deep")) == 2
    done = loaded.here("state", "verify", "--deep", "--mend")
    assert done.exit_code == 0, done.output
    assert loaded.json("state", "verify", "--deep") == []
    assert cells(loaded.project) == before


def test_a_run_writes_a_damaged_parquet_file_again(loaded: Finops) -> None:
    before = cells(loaded.project)
    pages(loaded.project)
    said = loaded.here("aws", "run-pipeline").stdout
    assert said.startswith(f"acme {MONTH}  exported again, as the file was damaged  ")
    assert cells(loaded.project) == before
    assert loaded.here("aws", "run-pipeline").stdout.startswith(f"acme {MONTH}  unchanged  ")


def test_a_staged_file_that_is_damaged_is_never_loaded(loaded: Finops) -> None:
    before = cells(loaded.project)
    staged_bytes(loaded.project)
    loaded.project.database_file.unlink()
    failed = loaded.here("aws", "run-pipeline")
    assert failed.exit_code == 1
    assert "00001.csv.gz has other bytes than when it was fetched; finops state" in failed.output
    done = loaded.here(*REPROCESS.split()[1:])
    assert done.exit_code == 0, done.output
    assert cells(loaded.project) == before


@pytest.mark.thorough
def test_a_parquet_file_without_a_checksum_is_compared_once(loaded: Finops) -> None:
    """As those are that were written before checksums were kept."""

    def forget() -> None:
        with duckdb.connect(str(loaded.project.database_file)) as connection:
            connection.execute("UPDATE finops_state.manifests SET lake_sha256 = NULL")

    forget()
    written = loaded.project.parquet(MONTH).stat().st_mtime_ns
    assert loaded.here("aws", "run-pipeline").stdout.startswith(f"acme {MONTH}  unchanged  ")
    assert loaded.project.parquet(MONTH).stat().st_mtime_ns == written
    ((checksum,),) = loaded.project.query("SELECT lake_sha256 FROM finops_state.manifests")
    assert checksum
    for damage in (pages, a_cell_in_parquet):
        forget()
        damage(loaded.project)
        said = loaded.here("aws", "run-pipeline").stdout
        assert said.startswith(f"acme {MONTH}  exported again, as the file was damaged  ")
        assert loaded.json("state", "verify", "--deep") == []


def test_a_damaged_database_is_said_and_hides_no_other_month(
    project: Project, finops: Finops
) -> None:
    finops.environment = project.shell_environment(
        '[database.duckdb]\ndatabase_path = "data/{export}-{month}.duckdb"\n'
    )
    for month in (MONTH, "2024-02"):
        deliver(project.put, month, [[line_item(month)]])
    finops.here("aws", "run-pipeline")
    path = project.folder / f"data/acme-{MONTH}.duckdb"
    overwrite(path, path.stat().st_size - 2 * 12_288)
    project.parquet("2024-02").unlink()
    later, damaged = finops.json("state", "verify", "--deep")
    assert "is damaged, and was left as it is" in damaged["what_differs"]
    assert (later["month"], damaged["month"]) == ("2024-02", MONTH)


def test_what_was_not_looked_at_is_said(loaded: Finops) -> None:
    plain = loaded.here("state", "verify", "acme")
    assert plain.stdout == "all agree\n"
    looked_at, not_looked_at, without_data = plain.stderr.splitlines()
    assert looked_at.startswith("looked at 1 month: event log, ledger, footers of Parquet files")
    assert not_looked_at.endswith("cells, pages of Parquet files, staged files; --deep reads all")
    assert without_data.endswith(" months of acme")
    assert without_data.startswith("without data: ")
    deep = loaded.here("state", "verify", "acme", MONTH, "--deep")
    assert deep.stdout == "all agree\n"
    (looked_at,) = deep.stderr.splitlines()
    assert "every byte of staged files and Parquet files, every column" in looked_at
    in_json = loaded.here("state", "verify", "acme", MONTH, "--deep", "--json")
    assert json.loads(in_json.stdout) == []
    assert in_json.stderr == deep.stderr


def test_staged_files_that_are_not_kept_are_no_damage(loaded: Finops) -> None:
    loaded.here("state", "cleanup", "--older-than", "0h")
    deep = loaded.here("state", "verify", "acme", MONTH, "--deep")
    assert deep.stdout == "all agree\n"
    said = "not looked at in 1 month: staged files, which are not kept, or not all fetched yet"
    assert said in deep.stderr
