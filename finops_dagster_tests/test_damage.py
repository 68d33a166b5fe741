"""Damage in every place that holds a month is found, and the named command repairs it."""

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from finops_dagster.lake import FolderFile
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project

MONTH = "2024-01"
BLENDED, QUANTITY = "lineItem/BlendedCost", "lineItem/UsageAmount"
DEEP = ("state", "verify", "--deep")


@pytest.fixture
def loaded(project: Project, finops: Finops) -> Finops:
    """Load a month of 500 line items."""
    rows = [
        line_item(
            MONTH,
            identity__LineItemId=f"{number * 7919 % 10007:x}" * 5,
            lineItem__UnblendedCost=f"0.{number}",
            lineItem__BlendedCost=f"0.{number}",
        )
        for number in range(1, 501)
    ]
    project.deliver(
        rows[:250],
        rows[250:],
        headers=(*HEADERS, BLENDED, QUANTITY),
        types={BLENDED: "BigDecimal", QUANTITY: "BigDecimal"},
    )
    finops("aws", "run-pipeline")
    return finops


def overwrite(path: Path, size: int = 4_000) -> None:
    """Overwrite the middle of a file with zeros; its size and its times stay."""
    times, content = path.stat(), path.read_bytes()
    start = (len(content) - size) // 2
    path.write_bytes(content[:start] + bytes(size) + content[start + size :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def in_table(change: str) -> Callable[[Project], None]:
    """Return a damage that changes one row of the table."""
    update = f"UPDATE aws_billing_data SET {change} WHERE lineitem_unblendedcost = 0.7"
    return lambda project: project.execute(update)


def in_parquet(change: Callable[[pa.Array], pa.Array]) -> Callable[[Project], None]:
    """Return a damage that rewrites the Parquet file: other services, the same footer."""

    def rewrite(project: Project) -> None:
        rows = pq.read_table(project.parquet_path())
        index = rows.schema.get_field_index("lineitem_productcode")
        changed = rows.set_column(index, rows.schema.field(index), change(rows[index]))
        pq.write_table(changed, project.parquet_path(), compression="zstd")
        assert FolderFile(project.parquet_path()).version()

    return rewrite


def staged(project: Project, name: str = "*/acme-cur-00001.csv.gz") -> Path:
    (path,) = (project.folder / "data/staging/acme" / MONTH).glob(name)
    return path


ONLY = f"--export acme --start-date {MONTH} --end-date {MONTH}"
REPROCESS = f"finops state reprocess acme {MONTH}"
RUN = f"finops aws run-pipeline {ONLY}"
FETCH = f"finops aws extract-billing {ONLY} --force"
# A function that damages, the message of --deep, and the command that the message names.
Damage = tuple[Callable[[Project], None], str, str]
SERVICE, QUANTITY_OF = "differ in lineitem_productcode; ", "differ in lineitem_usageamount; "
AS_WRITTEN = "the file is unchanged"
A_SERVICE: Damage = in_table("lineitem_productcode = 'EC3'"), SERVICE + AS_WRITTEN, REPROCESS
PAGES: Damage = lambda project: overwrite(project.parquet_path()), f"{MONTH}.parquet", RUN
OTHER_BYTES = "has changed since it was fetched: its checksum differs"
STAGED_BYTES: Damage = lambda project: overwrite(staged(project), 20), OTHER_BYTES, FETCH
EC3 = in_parquet(lambda names: pc.replace_substring(names, "EC2", "EC3"))
A_CELL_IN_PARQUET: Damage = EC3, SERVICE + "the file was changed", RUN
ROUNDED = in_table("lineitem_usageamount = 0.700000000000000001")
DAMAGES: list[Damage] = [
    A_SERVICE,
    (ROUNDED, QUANTITY_OF + AS_WRITTEN, REPROCESS),
    PAGES,
    STAGED_BYTES,
    (lambda project: staged(project).unlink(), "00001.csv.gz is missing", FETCH),
]
MORE_DAMAGES: list[Damage] = [
    (in_table("bill_payeraccountid = NULL"), "differ in bill_payeraccountid", REPROCESS),
    A_CELL_IN_PARQUET,
    (in_parquet(lambda same: same), "was changed, though its cells are the same", RUN),
    (lambda project: cut(staged(project)), "bytes, and had", FETCH),
    (lambda project: cut(staged(project, "manifest.json")), "manifest.json is damaged", FETCH),
]


def cells(project: Project) -> list[list[tuple[object, ...]]]:
    in_lake = duckdb.sql(f"FROM {project.parquet_scan()} ORDER BY ALL").fetchall()
    return [project.query("FROM aws_billing_data ORDER BY ALL"), in_lake]


@pytest.mark.thorough
@pytest.mark.parametrize("damages", [DAMAGES, MORE_DAMAGES])
def test_damage_is_found_and_repaired_by_the_command_that_is_named(
    loaded: Finops, damages: list[Damage]
) -> None:
    before = cells(loaded.project)
    for damage, message, command in damages:
        damage(loaded.project)
        assert loaded.json("state", "verify") == [], "what only --deep finds"
        (row,) = loaded.json(*DEEP)
        assert message in row["what_differs"]
        assert row["repair"] == command
        loaded(*command.split()[1:])
        assert loaded.json(*DEEP) == []
        assert cells(loaded.project) == before


@pytest.mark.thorough
def test_mend_repairs_all_damage_at_once(loaded: Finops) -> None:
    before = cells(loaded.project)
    for damage, _, _ in (PAGES, A_SERVICE, STAGED_BYTES):
        damage(loaded.project)
    assert len(loaded.json(*DEEP)) == 2
    loaded(*DEEP, "--repair")
    assert loaded.json(*DEEP) == []
    assert cells(loaded.project) == before


@pytest.mark.thorough
def test_every_money_column_is_compared_with_the_ledger(loaded: Finops) -> None:
    in_table("lineitem_blendedcost = 0.700000000000000001")(loaded.project)
    (row,) = loaded.json("state", "verify")
    assert "but the table does not have its rows and cost" in row["what_differs"]
    assert row["repair"] == RUN
    loaded(*RUN.split()[1:])
    assert loaded.json(*DEEP) == []


@pytest.mark.thorough
def test_a_warehouse_that_lost_rows_is_loaded_again(project: Project) -> None:
    finops = Finops(project, '[database.duckdb]\nwarehouse_path = "data/warehouse.duckdb"\n')
    project.deliver("1", "2", month=MONTH)
    finops("aws", "run-pipeline")
    with duckdb.connect(str(project.folder / "data/warehouse.duckdb")) as warehouse:
        warehouse.execute("DELETE FROM aws_billing_data WHERE lineitem_unblendedcost = 2")
    (row,) = finops.json("state", "verify")
    assert row["repair"] == RUN
    finops(*RUN.split()[1:])
    assert finops.json("state", "verify") == []


@pytest.mark.thorough
def test_a_damaged_staged_file_is_never_loaded(loaded: Finops) -> None:
    before = cells(loaded.project)
    overwrite(staged(loaded.project), 20)
    loaded.project.database_file.unlink()
    failed = loaded("aws", "run-pipeline", code=1)
    assert f"00001.csv.gz {OTHER_BYTES}; to download it again, run finops state" in failed
    loaded(*REPROCESS.split()[1:])
    assert cells(loaded.project) == before


WRITTEN_AGAIN = f"acme {MONTH}  exported again, as the file was damaged  "


@pytest.mark.thorough
def test_a_parquet_file_without_a_checksum_is_compared_once(loaded: Finops) -> None:
    """Earlier releases wrote files without a checksum."""
    project, forget = loaded.project, "UPDATE finops_state.manifests SET lake_sha256 = NULL"
    project.execute(forget)
    written = project.parquet_path().stat().st_mtime_ns
    assert loaded("aws", "run-pipeline").startswith(f"acme {MONTH}  unchanged  ")
    assert project.parquet_path().stat().st_mtime_ns == written
    ((checksum,),) = project.ledger("lake_sha256")
    assert checksum
    for damage, _, _ in (PAGES, A_CELL_IN_PARQUET):
        project.execute(forget)
        damage(project)
        assert loaded("aws", "run-pipeline").startswith(WRITTEN_AGAIN)
        assert loaded.json(*DEEP) == []


@pytest.mark.thorough
def test_a_damaged_database_is_reported_and_hides_no_other_month(project: Project) -> None:
    databases = '[database.duckdb]\ndatabase_path = "data/{export}-{month}.duckdb"\n'
    finops = Finops(project, databases)
    for month in (MONTH, "2024-02"):
        project.deliver("1", month=month)
    finops("aws", "run-pipeline")
    path = project.folder / f"data/acme-{MONTH}.duckdb"
    overwrite(path, path.stat().st_size - 2 * 12_288)
    project.parquet_path("2024-02").unlink()
    later, damaged = finops.json(*DEEP)
    assert "is damaged and was not changed" in damaged["what_differs"]
    assert (later["month"], damaged["month"]) == ("2024-02", MONTH)


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["100KB", "1MB", "16MB"])
def test_too_little_memory_is_no_damage(project: Project, memory: str) -> None:
    """To open the database takes little memory, to read the table more, the Parquet file most."""
    tags = {f"resourceTags__{number}": str(number) for number in range(100)}
    rows = [
        line_item(MONTH, identity__LineItemId=str(number) * 1000, **tags) for number in range(500)
    ]
    headers = (*HEADERS, *(tag.replace("__", "/") for tag in tags))
    project.deliver(rows, headers=headers)
    Finops(project)("aws", "run-pipeline")
    little = Finops(project, f'[database.duckdb]\nthreads = 1\nmemory_limit = "{memory}"\n')
    output = little(*DEEP, code=1)
    assert "needs more memory for this than database.duckdb.memory_limit; raise it" in output
    assert "check the file" not in output
    if memory != "100KB":
        (line,) = output.splitlines()
        assert line.startswith("DuckDB needs more memory")


@pytest.mark.thorough
def test_verify_reports_what_it_did_not_read(loaded: Finops) -> None:
    plain = loaded.run("state", "verify", "acme")
    assert plain.stdout == "all agree\n"
    looked_at, not_looked_at, without_data = plain.stderr.splitlines()
    assert looked_at.startswith("checked 1 month: event log, ledger, footers of Parquet files")
    assert not_looked_at.endswith("cells, pages of Parquet files, staged files; --deep checks them")
    assert without_data.endswith(" months of acme")
    assert without_data.startswith("without data: ")
    deep = loaded.run(*DEEP, "acme", MONTH)
    assert deep.stdout == "all agree\n"
    (looked_at,) = deep.stderr.splitlines()
    assert "every byte of staged files and Parquet files, every column" in looked_at
    as_json = loaded.run(*DEEP, "acme", MONTH, "--json")
    assert (as_json.stdout, as_json.stderr) == ("[]\n", deep.stderr)

    loaded("state", "cleanup", "--older-than", "0h")
    deep = loaded.run(*DEEP, "acme", MONTH)
    assert deep.stdout == "all agree\n", "staged files that are not kept are no damage"
    not_kept = (
        "not checked in 1 month: staged files, which were deleted or are not all downloaded yet"
    )
    assert not_kept in deep.stderr
