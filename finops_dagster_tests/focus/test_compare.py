"""The charges of two exports of one month are compared, by `finops focus compare` and in runs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server

FIRST = """
    ('1', 'EC2', 'Usage', 'USD', 1.000000000000000001, 3),
    ('1', 'EC2', 'Usage', 'USD', 2, 0),
    ('1', 'S3', 'Usage', 'USD', 5, 5),
    (NULL, 'Tax', 'Tax', 'USD', 7, 7)
"""
# One charge in place of two, a service less by 2, and a category that the other does not have.
SECOND = """
    ('1', 'EC2', 'Usage', 'USD', 3.000000000000000001, 3),
    ('1', 'S3', 'Usage', 'USD', 3, 5),
    ('1', 'S3', 'Credit', 'USD', 0, -1),
    (NULL, 'Tax', 'Tax', 'USD', 7, 7)
"""


OWN = """
[[exports]]
name = "own"
vendor = "aws"
format = "focus"
source = "file://source"
export_name = "own"
start_month = "2024-01"
table = "own"
"""


@pytest.fixture
def finops(project: Project, monkeypatch: pytest.MonkeyPatch) -> Finops:
    monkeypatch.setenv("COLUMNS", "200")
    put_charges(project, "acme", FIRST)
    put_charges(project, "own", SECOND)
    return Finops(project, OWN)


def put_charges(project: Project, export: str, rows: str) -> None:
    folder = project.folder / f"data/parquet/focus/{export}/billing_month=2026-01"
    folder.mkdir(parents=True, exist_ok=True)
    names = "SubAccountId, ServiceName, ChargeCategory, BillingCurrency, BilledCost, EffectiveCost"
    exact = ", ".join(f"{cost}::DECIMAL(38, 18) AS {cost}" for cost in names.split(", ")[-2:])
    duckdb.execute(
        f"COPY (SELECT * REPLACE ({exact}) FROM (VALUES {rows}) AS charges({names})) "
        f"TO '{folder}/{export}-2026-01.parquet'"
    )


def test_what_differs_is_shown_with_the_largest_difference_first(finops: Finops) -> None:
    result = finops.run("focus", "compare", "acme", "own", "2026-01")
    assert result.exit_code == 1
    assert "billed acme" in result.stdout and "effective own" in result.stdout
    assert "EC2" not in result.stdout and "Tax" not in result.stdout
    assert result.stderr.splitlines()[-2:] == [
        "2 of 4 groups of account, service and category differ",
        "USD: acme: billed 15.000000000000000001, effective 15, "
        "own: billed 13.000000000000000001, effective 14",
    ]
    s3 = {"account": "1", "service": "S3", "currency": "USD"}
    assert finops.json("focus", "compare", "acme", "own", "2026-01") == [
        {
            **s3,
            "category": "Usage",
            **{"rows_1": 1, "rows_2": 1},
            **{"billed_1": "5", "billed_2": "3", "effective_1": "5", "effective_2": "5"},
        },
        {
            **s3,
            "category": "Credit",
            **{"rows_1": 0, "rows_2": 1},
            **{"billed_1": "0", "billed_2": "0", "effective_1": "0", "effective_2": "-1"},
        },
    ]


def test_other_numbers_of_charges_are_no_difference(project: Project, finops: Finops) -> None:
    put_charges(project, "own", SECOND.replace("'USD', 3, 5", "'USD', 5, 5").replace("-1", "0"))
    result = finops.run("focus", "compare", "acme", "own", "2026-01")
    assert (result.exit_code, result.stdout.strip()) == (0, "nothing differs")


def test_too_little_memory_is_not_taken_for_a_damaged_file(finops: Finops) -> None:
    memory = '[database.duckdb]\nthreads = 1\nmemory_limit = "1MB"\n'
    finops = Finops(finops.project, OWN + memory)
    (line,) = finops("focus", "compare", "acme", "own", "2026-01", code=1).splitlines()
    assert line.startswith("DuckDB needs more memory for this than database.duckdb.memory_limit;")
    assert "cannot be compared" not in line and "reprocess" not in line


def test_exports_and_months_without_charges_are_errors(finops: Finops) -> None:
    assert "own has no charges of 2026-02" in finops(
        "focus", "compare", "own", "acme", "2026-02", code=1
    )
    assert "no export 'other'" in finops("focus", "compare", "acme", "other", "2026-01", code=1)


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project of a company that has its bill as CUR in `acme`, and as FOCUS in `own`.

    The fixture `project` would have no mappings.
    """
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.add_export(name="own", format="focus", export_name="own", table="own")
    deliver(project, "acme-cur", "cur1")
    deliver(project, "own", "focus-1.2")
    project.load()
    return project


def deliver(project: Project, export_name: str, layout: str, *, restated: bool = False) -> None:
    version = "20240204T000000Z" if restated else "20240203T000000Z"
    bill = BillVersion(date(2024, 1, 1), version, rows=1000, restated=restated)
    write_version(project.source, "", export_name, bill, layout=Layout(layout))  # type: ignore[arg-type]


@pytest.mark.thorough
def test_the_same_bill_as_cur_and_as_the_vendors_focus_has_the_same_costs(company: Project) -> None:
    run = company.load(export="own")
    assert run.metadata("focus")["groups_differ"] == 0
    assert "differences" not in run.metadata("focus")
    assert Finops(company, OWN).json("focus", "compare", "acme", "own", "2024-01") == []


@pytest.mark.thorough
def test_a_run_shows_what_differs_from_the_vendors_own_focus(company: Project) -> None:
    """The run of either export does, whose month is loaded last; a repeated run repeats it."""
    assert "compared_with" not in company.load().metadata("focus")
    deliver(company, "own", "focus-1.2", restated=True)
    runs = [company.load(export="own"), company.load(), company.load()]
    first, second, third = (run.metadata("focus") for run in runs)
    assert first["groups_differ"] == second["groups_differ"] > 0
    assert str(first["compared_with"]).startswith("acme 20240203T000000Z aws-cur ")
    assert str(second["compared_with"]).startswith("own ")
    assert runs[2].outcomes()["focus"] == "unchanged"
    assert third["differences"] == second["differences"]
    header, _, *lines = str(second["differences"]).splitlines()
    assert header.endswith("billed acme | billed there | effective acme | effective there |")
    assert len(lines) == min(20, int(str(second["groups_differ"])))
    assert all(line.startswith("| own | ") for line in lines)


@pytest.mark.thorough
def test_charges_of_other_accounts_are_not_compared_and_unreadable_ones_do_no_harm(
    company: Project,
) -> None:
    company.load(export="own")
    path = company.folder / "data/parquet/focus/own/billing_month=2024-01/own-2024-01.parquet"
    charges = pq.read_table(path, partitioning=None)
    number = charges.column_names.index("BillingAccountId")
    others = charges.set_column(number, "BillingAccountId", [["other"] * len(charges)])
    pq.write_table(others, path)
    assert "compared_with" not in company.load().metadata("focus")
    pq.write_table(charges.drop_columns(["BillingAccountId"]), path)
    metadata = company.load().metadata("focus")
    assert str(metadata["compared_with"]).startswith("nothing, as charges cannot be read: ")


@pytest.mark.thorough
def test_changed_charges_of_another_export_in_a_store_do_no_harm(
    company: Project, s3: S3Server, bucket: str
) -> None:
    connection = {"endpoint_url": s3.url, "region": "us-east-1"}
    company.storage = {"parquet_dir": f"s3://{bucket}/lake", "lake": connection}
    company.load(export="own")
    listed = s3.client().list_objects_v2(Bucket=bucket, Prefix="lake/focus/own")["Contents"]
    (key,) = (info["Key"] for info in listed if info["Key"].endswith(".parquet"))
    s3.client().put_object(Bucket=bucket, Key=key, Body=b"damaged")
    company.storage["staging_dir"] = "elsewhere"  # where there is no copy of the charges
    metadata = company.load().metadata("focus")
    assert str(metadata["compared_with"]).startswith("nothing, as charges cannot be read: ")
