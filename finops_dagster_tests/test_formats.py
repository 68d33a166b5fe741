"""One bill in every layout of AWS is the same bill after all stages.

Public, anonymised bills of real companies are loaded too, with manifests as AWS would write them.
"""

import csv
import gzip
import json
import os
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.cur import Put, csv_bytes, upload, zip_bytes
from finops_dagster_tests.demo.delivered import all_rows
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.s3 import S3Server

Totals = tuple[int, Decimal]
JANUARY = BillVersion(date(2024, 1, 1), "20240203T050312Z", rows=1200)
FEBRUARY = BillVersion(date(2024, 2, 1), "20240302T044907Z", rows=1100)
COSTS = {
    "cur1": "lineitem_unblendedcost",
    "cur2": "line_item_unblended_cost",
    "focus": "billedcost",
}
LAYOUTS = {
    "cur1-gzip": Layout(),
    "cur1-zip": Layout(files="zip"),
    "cur1-csv": Layout(files="csv"),
    "cur1-gzip-overwrite": Layout(overwrite=True),
    "cur1-zip-overwrite": Layout(files="zip", overwrite=True),
    "cur1-parquet": Layout(files="parquet", overwrite=True),
    "cur2-gzip": Layout("cur2"),
    "cur2-gzip-key-small": Layout("cur2", data_files="key", partition="billing_period"),
    "cur2-gzip-overwrite": Layout("cur2", overwrite=True, data_files="object"),
    "cur2-parquet": Layout("cur2", "parquet", plain_manifest_name=True),
    "cur2-parquet-overwrite": Layout("cur2", "parquet", overwrite=True),
    "focus-1.0-gzip": Layout("focus-1.0", partition="billing_period"),
    "focus-1.0-parquet": Layout("focus-1.0", "parquet"),
    "focus-1.2-gzip": Layout("focus-1.2"),
    "focus-1.2-parquet-overwrite": Layout("focus-1.2", "parquet", overwrite=True),
}
# Each kind of manifest, and each kind of file.
OVERWRITTEN = (
    "cur1-gzip-overwrite",
    "cur1-zip-overwrite",
    "cur1-parquet",
    "cur2-parquet-overwrite",
)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
# The layouts of the same bill in CSV and in Parquet.
CSV_AND_PARQUET = {
    name: (Layout(name), Layout(name, "parquet", overwrite=name == "cur1"))
    for name in ("cur1", "cur2", "focus-1.0", "focus-1.2")
}


@pytest.fixture(scope="module")
def january(tmp_path_factory: pytest.TempPathFactory) -> Totals:
    """Return rows and cost of the bill, as Python's csv and Decimal count its CUR v1."""
    folder = tmp_path_factory.mktemp("january")
    manifest = json.loads(write_version(folder, "", "acme-cur", JANUARY).read_text())
    costs = []
    for key in manifest["reportKeys"]:
        with gzip.open(folder / key, "rt", encoding="utf-8", newline="") as text:
            costs += [Decimal(row["lineItem/UnblendedCost"]) for row in csv.DictReader(text)]
    return len(costs), sum(costs, Decimal(0))


def format_of(layout: Layout) -> str:
    return layout.format.partition("-")[0]


def deliver(
    project: Project, layout: Layout, version: BillVersion = JANUARY, prefix: str = ""
) -> Path:
    """Deliver a version of the bill, set the export's format, and return the manifest's path.

    FOCUS has other rows than CUR, with the same cost.
    """
    project.export["format"] = format_of(layout)
    return write_version(project.source, prefix, "acme-cur", version, layout=layout)


def totals(
    project: Project, layout: Layout, month: str = "2024-01", table: str = "aws_billing_data"
) -> Totals:
    cost = COSTS[format_of(layout)]
    (row,) = project.query(
        f"SELECT count(*), sum({cost}) FROM {table} WHERE billing_month = '{month}-01'::DATE"
    )
    return row


@every_layout
@pytest.mark.quick(
    "cur1-zip-",
    "cur1-parquet",
    "cur2-gzip-key-small",
    "focus-1.0-gzip",
    "focus-1.2-parquet",
)
def test_every_layout_loads_the_same_month(
    project: Project, layout: Layout, january: Totals
) -> None:
    rows = len(all_rows(project.source, deliver(project, layout)))
    assert layout.format.startswith("focus") or rows == january[0]
    run = project.load()
    assert totals(project, layout) == (rows, january[1])
    assert run.metadata("manifest")["format"] == format_of(layout)
    assert run.metadata("parquet")["total_cost_exact"] == str(january[1])
    assert run.metadata("staged_files")["costs_rounded"] == 0
    assert "warnings" not in run.metadata("billing_table")
    assert set(project.load().outcomes().values()) == {"unchanged"}


@pytest.mark.parametrize(
    ("format_name", "column_names"),
    [("cur1", "athena"), *((name, "flat") for name in CSV_AND_PARQUET)],
)
@pytest.mark.quick("cur2")
def test_csv_and_parquet_have_equal_cells(
    project: Project, format_name: str, column_names: str
) -> None:
    columns = []
    for name, layout in zip(("csv", "parquet"), CSV_AND_PARQUET[format_name], strict=True):
        write_version(project.source, "", name, JANUARY, layout=layout)
        export = {"export_name": name, "format": format_of(layout), "column_names": column_names}
        project.add_export(name=name, table=name, **export)
        project.load(export=name)
        columns.append({row[:2] for row in project.query(f"DESCRIBE {name}")})
    as_csv, as_parquet = columns
    # Parquet alone does not tell that `created_by` was `createdBy`.
    of_parquet = (
        {"year", "month", "resourcetags_aws_created_by"} if format_name == "cur1" else set()
    )
    assert {name for name, _ in as_parquet - as_csv} <= of_parquet
    assert {name for name, _ in as_csv - as_parquet} <= {"resourcetags_aws_createdby"}
    cells = ", ".join(f'"{name}"' for name, _ in as_csv & as_parquet if name != "manifest_id")
    for left, right in (("csv", "parquet"), ("parquet", "csv")):
        difference = f"FROM {left} SELECT {cells} EXCEPT ALL FROM {right} SELECT {cells}"
        assert project.query(f"SELECT count(*) FROM ({difference})") == [(0,)]


@pytest.mark.parametrize(
    "reversed_order", [False, True], ids=["csv-then-parquet", "parquet-then-csv"]
)
@pytest.mark.parametrize(
    "format_name",
    ["cur1", *(pytest.param(f, marks=pytest.mark.thorough) for f in ("cur2", "focus-1.2"))],
)
@pytest.mark.quick("csv-then-parquet")
def test_a_table_takes_months_of_csv_and_of_parquet(
    project: Project, format_name: str, reversed_order: bool
) -> None:
    layouts = CSV_AND_PARQUET[format_name][::-1] if reversed_order else CSV_AND_PARQUET[format_name]
    columns: list[set[str]] = []
    for version, layout in zip((JANUARY, FEBRUARY), layouts, strict=True):
        manifest = deliver(project, layout, version)
        project.export["format"] = None
        run = project.load(f"{version.first_day:%Y-%m}")
        assert "warnings" not in run.metadata("billing_table")
        columns.append({row[0] for row in project.query("DESCRIBE aws_billing_data")})
        rows = len(all_rows(project.source, manifest))
        assert totals(project, layout, f"{version.first_day:%Y-%m}")[0] == rows > 1000
    assert columns[0] ^ columns[1] <= {"year", "month"}


PUBLIC_QUERY = """
    SELECT line_item_product_code, line_item_usage_account_id,
           DATE_FORMAT(line_item_usage_start_date, '%Y-%m-%d') AS day_line_item_usage_start_date,
           SUM(CAST(line_item_usage_amount AS DOUBLE)) AS sum_line_item_usage_amount,
           SUM(CAST(line_item_unblended_cost AS DECIMAL(16, 8))) AS sum_line_item_unblended_cost,
           SUM(CASE WHEN line_item_line_item_type = 'SavingsPlanCoveredUsage'
                    THEN savings_plan_savings_plan_effective_cost
                    WHEN line_item_line_item_type = 'DiscountedUsage'
                    THEN reservation_effective_cost
                    ELSE line_item_unblended_cost END) AS amortized_cost
    FROM aws_billing_data
    WHERE bill_payer_account_id <> '' AND line_item_line_item_type NOT IN ('Tax', 'Refund')
      AND (reservation_reservation_a_r_n IS NULL OR reservation_reservation_a_r_n <> 'x')
      AND pricing_term IS DISTINCT FROM 'Spot' AND product_instance_type IS DISTINCT FROM 'x'
    GROUP BY ALL ORDER BY sum_line_item_unblended_cost DESC
"""


@pytest.mark.parametrize("layout", CSV_AND_PARQUET["cur1"], ids=["csv", "parquet"])
@pytest.mark.quick("parquet")
def test_queries_written_for_athena_run_on_athena_names(project: Project, layout: Layout) -> None:
    """The query is like those of AWS's public CUR query library; DATE_FORMAT is Athena's own."""
    project.export["column_names"] = "athena"
    deliver(project, layout)
    project.load()
    rows = project.query(PUBLIC_QUERY.replace("DATE_FORMAT", "strftime"))
    assert sum(row[4] for row in rows) > 0


@pytest.mark.thorough
def test_a_table_keeps_the_style_of_its_column_names(project: Project) -> None:
    deliver(project, Layout())
    project.load()
    project.export["column_names"] = "athena"
    deliver(project, Layout(), FEBRUARY)
    error = project.materialize("2024-02").error
    assert error.startswith(
        "column_names of acme was changed after months were loaded: the cost is in column "
        "lineitem_unblendedcost of table aws_billing_data, and the setting now asks for "
        "line_item_unblended_cost; "
    )
    project.export |= {"name": "again", "table": "again"}
    project.load("2024-02", export="again")


def test_manifests_of_two_formats_fail_until_the_settings_choose_one(project: Project) -> None:
    deliver(project, Layout())
    deliver(project, Layout("cur2"))
    project.export["format"] = None
    error = project.materialize().error
    assert error.startswith("acme 2024-01 has two manifests, ")
    assert "acme-cur/20240101-20240201/acme-cur-Manifest.json (cur1) and " in error
    assert error.endswith("; set the format of acme")
    project.export["format"] = "cur2"
    project.load()


@pytest.mark.parametrize(("chosen", "actual"), [("cur2", "focus-1.0"), ("focus", "cur2")])
def test_the_error_of_a_wrong_format_names_the_right_one(
    project: Project, chosen: str, actual: str
) -> None:
    deliver(project, Layout(actual))
    right, project.export["format"] = project.export["format"], chosen
    error = project.materialize().error
    assert f'has the columns of another format; set format = "{right}" for acme' in error


def rewrite(manifest: Path, **fields: object) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))


def test_an_export_without_a_cost_column_fails_and_lists_its_columns(project: Project) -> None:
    manifest = deliver(project, Layout("cur2"))
    for path in (project.source / "acme-cur/data").rglob("*.gz"):
        path.write_bytes(gzip.compress(b"bill_bill_type,bill_invoice_id\nAnniversary,\n"))
    rewrite(manifest, columns=[{"name": "bill_bill_type"}])
    error = project.materialize().error
    assert "no column gives line_item_unblended_cost" in error
    assert "the file has the columns bill_bill_type, bill_invoice_id" in error


@pytest.mark.thorough
@pytest.mark.parametrize("name", OVERWRITTEN)
def test_versions_that_overwrite_each_other_are_never_mixed(project: Project, name: str) -> None:
    layout = LAYOUTS[name]
    rows = []
    for version, count, parts in (("20240202T000000Z", 900, 4), ("20240203T000000Z", 500, 2)):
        manifest = deliver(project, layout, BillVersion(JANUARY.first_day, version, count, parts))
        rows.append(len(all_rows(project.source, manifest)))
        run = project.load()
    assert totals(project, layout)[0] == rows[1]
    assert run.metadata("billing_table")["rows_changed"] == rows[1] - rows[0] < -300

    newest = sorted(path for path in project.source.rglob("*-00001.*") if path.is_file())[-1]
    written = newest.stat().st_mtime
    os.utime(newest, (written + 59, written + 59))  # with its manifest
    project.load(force=True)
    os.utime(newest, (written + 7200, written + 7200))
    error = project.materialize(force=True).error
    assert f"{newest} is newer than its manifest by 2.0 hours" in error
    assert "the vendor is" in error and "set copied = true" in error
    assert "run the month again when its manifest is there" in error
    assert totals(project, layout)[0] == rows[1]
    manifest = deliver(
        project, layout, BillVersion(JANUARY.first_day, "20240204T000000Z", rows=600)
    )
    project.load()
    assert totals(project, layout)[0] == len(all_rows(project.source, manifest)) > rows[1]


def test_a_manifest_that_changes_during_the_download_fails_the_month(
    project: Project, put_in_bucket: Put, s3: S3Server
) -> None:
    layout = Layout("cur2", overwrite=True)
    body = deliver(project, layout).read_bytes()
    upload(project.source, put_in_bucket)
    project.load()
    manifest = "acme-cur/metadata/BILLING_PERIOD=2024-01/acme-cur-Manifest.json"

    def refresh_when_the_manifest_was_read(environ, start_response):
        if environ["REQUEST_METHOD"] == "HEAD" and environ["PATH_INFO"].endswith(".csv.gz"):
            s3.fault = None
            put_in_bucket(manifest, body.replace(b'"executionId": "', b'"executionId": "a'))

    s3.fault = refresh_when_the_manifest_was_read
    error = project.materialize(force=True).error
    assert f"{manifest} changed while its files were fetched" in error
    assert totals(project, layout)[0] == JANUARY.rows
    project.load()


def test_a_file_of_another_size_than_the_manifest_lists_is_refused(project: Project) -> None:
    manifest = deliver(project, Layout("cur2", data_files="object"))
    listed = json.loads(manifest.read_text())["dataFiles"][0]
    path = project.source / listed["s3Uri"].split("/", 3)[3]
    path.write_bytes(gzip.compress(b"line_item_unblended_cost\n1\n"))
    size = path.stat().st_size
    message = f"{path} has {size} bytes, but the manifest says {listed['size']}"
    assert message in project.materialize().error


@pytest.mark.thorough
def test_a_replicated_bucket_is_read(project: Project, put_in_bucket: Put, january: Totals) -> None:
    for layout in (Layout("cur2"), Layout(files="parquet", overwrite=True)):
        name, folder = layout.format, project.folder / layout.format
        write_version(folder / "copied", "original/prefix", "acme-cur", JANUARY, layout=layout)
        (folder / "copied/original/prefix").rename(folder / "copied" / name)
        upload(folder, put_in_bucket)
        source = f"{project.export['source']}/copied/{name}"
        project.add_export(name=name, table=name, format=name, source=source)
        project.load(export=name)
        assert totals(project, layout, table=name) == january


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.quick("True")
def test_a_copy_with_a_zero_in_its_months_folder_is_read(
    project: Project, put_in_bucket: Put, january: Totals, beside: bool
) -> None:
    layout = Layout(files="parquet", overwrite=True)
    manifest = deliver(project, layout)
    folder = project.source / "acme-cur/acme-cur/year=2024"
    (folder / "month=1").rename(folder / "month=01")
    if beside:
        manifest.rename(folder / "month=01" / manifest.name)
    upload(project.source, put_in_bucket)
    project.load()
    assert totals(project, layout) == january
    assert isinstance(project.available_versions()[BillingMonth(2024, 1)], Manifest)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.quick("True")
def test_a_copy_whose_folders_differ_in_case_is_the_same_version(
    project: Project, named: bool
) -> None:
    manifest = deliver(project, Layout("cur2"))
    if not named:
        listed = json.loads(manifest.read_text())["dataFiles"]
        manifest.write_text(json.dumps({"dataFiles": listed}))
    project.load()
    for folder in ("data", "metadata"):
        home = project.source / "acme-cur" / folder
        shutil.copytree(home / "BILLING_PERIOD=2024-01", home / "billing_period=2024-01")
        shutil.rmtree(home / "BILLING_PERIOD=2024-01")
    outcomes = project.load().outcomes()
    assert (outcomes["billing_table"], outcomes["parquet"]) == ("unchanged", "unchanged")


def test_discover_manifests_lists_a_copy_and_reports_missing_files(
    project: Project, finops: Finops
) -> None:
    settings = project.folder / "finops.toml"
    settings.write_text(settings.read_text().replace('"cur1"', '"cur2"'))
    deliver(project, Layout("cur2"))
    data = project.source / "acme-cur/data"
    (data / "BILLING_PERIOD=2024-01").rename(data / "billing_period=2024-01")
    (row,) = finops.json("aws", "discover-manifests")
    files = list(data.rglob("*.gz"))
    assert row["bytes"] == sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    listed = finops("aws", "discover-manifests", code=1)
    assert "acme 2024-01  failed: " in listed
    assert "there is no such file, though the manifest lists it" in listed


DATA = ROOT.parent / "shared/data"
public = pytest.mark.skipif(not DATA.is_dir(), reason="the public bills are not in ../shared/data")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@public
@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zip", zip_bytes)])
def test_a_public_cur_v1_of_november_2023_is_loaded(project: Project, suffix: str, pack) -> None:
    path, month = DATA / "focus_converters/aws-cur-v1.csv", "2023-11"
    rows = rows_of(path)
    files = {"headers": tuple(rows[0]), "with_types": False, "suffix": suffix}
    project.deliver(pack(path.read_bytes()), month=month, **files)
    assert project.load(month).metadata("billing_table")["final"] is False
    costs = [Decimal(row["lineItem/UnblendedCost"]) for row in rows]
    totals = (len(costs), sum(costs))
    assert project.totals(month) == project.parquet_totals(month) == totals
    assert project.column("lineitem_unblendedcost", month).count(0) == costs.count(Decimal(0))


@public
def test_a_public_focus_1_0_of_september_2024_is_loaded(project: Project) -> None:
    """The sample of the FOCUS specification has the word NULL where there is no value."""
    sample = rows_of(DATA / "focus_sample/focus_sample.csv")
    rows = [row for row in sample if row["ProviderName"] == "AWS"]
    project.export["format"] = None
    month = "BILLING_PERIOD=2024-09"
    file = f"acme-cur/data/{month}/20241003T000000Z-e1/acme-cur-00001.csv.gz"
    project.put(file, gzip.compress(csv_bytes(rows, tuple(rows[0]))))
    manifest = {
        "executionId": "e1",
        "columns": [{"name": name} for name in rows[0]],
        "billingPeriod": "2024-09",
        "dataFiles": [{"s3Uri": f"s3://acme/{file}"}],
    }
    project.put(f"acme-cur/metadata/{month}/acme-cur-Manifest.json", json.dumps(manifest).encode())
    project.load("2024-09")
    loaded = project.query(
        "SELECT count(*), sum(billedcost), sum(effectivecost), count(resourceid), "
        "count(tags['application']) FROM aws_billing_data"
    )
    billed, effective = (
        sum(Decimal(row[name]) for row in rows) for name in ("BilledCost", "EffectiveCost")
    )
    resources = sum(row["ResourceId"] != "NULL" for row in rows)
    tags = sum('"application"' in row["Tags"] for row in rows)
    assert loaded == [(len(rows), billed, effective, resources, tags)]
