"""Public bug reports of Azure's exports: each test has the name of a report, and its right outcome.

The numbers are those of the list that the reports were collected in.
"""

from __future__ import annotations

import gzip
import json
import shutil
from decimal import Decimal

import pytest

from finops_dagster_tests.azure import (
    ENROLMENT,
    Charge,
    Row,
    Run,
    costs,
    deliver,
    file_bytes,
    focus_rows,
    usage_rows,
)
from finops_dagster_tests.project import MonthRun, Project, requested_months

pytestmark = pytest.mark.thorough


@pytest.fixture
def actual(project: Project) -> Project:
    """Return the project with an export of actual costs."""
    project.export["format"] = "actual"
    return project


ACTUAL = Run(dataset="ActualCost")


def load(project: Project, month: str = "2024-01", *, force: bool = False) -> MonthRun:
    return project.load(month, export="contoso", force=force)


def refused(project: Project, month: str = "2024-01") -> str:
    run = project.materialize(month, export="contoso")
    assert not run.success
    return run.error


def total(project: Project, column: str = "billedcost") -> Decimal:
    ((amount,),) = project.query(f"SELECT sum({column}) FROM azure")
    return amount


def test_01_finops_toolkit_320_a_one_time_export_does_not_double_the_month(
    project: Project,
) -> None:
    deliver(project.put, Run(export="daily"), costs("1", "2"))
    load(project)
    part = Run(number=2, export="once", days=("2024-01-10", "2024-01-20"))
    deliver(project.put, part, costs("2"))
    message = refused(project)
    assert "covers 2024-01-10 to 2024-01-20, fewer days than the loaded version" in message
    assert "which covers 2024-01-01 to 2024-01-31" in message
    assert total(project) == 3
    load(project, force=True)
    assert total(project) == 2


def test_02_finops_toolkit_966_an_old_and_a_new_export_side_by_side_are_not_mixed(
    project: Project,
) -> None:
    deliver(project.put, Run(export="old", manifest="2021-01-01", number=2), costs("1"))
    deliver(project.put, Run(export="new"), costs("2"))
    message = refused(project)
    assert "exports/new (/subscriptions/" in message
    assert "exports/old (scope unknown)" in message
    project.export["export_names"] = ["new"]
    load(project)
    assert total(project) == 2


def test_03_finops_toolkit_566_runs_in_folders_of_their_own_replace_each_other(
    project: Project,
) -> None:
    for number in range(1, 4):
        deliver(project.put, Run(number=number), costs("1", str(number)))
        load(project)
    assert total(project) == 4
    assert project.query("SELECT DISTINCT manifest_id FROM azure") == [(Run(number=3).run_id,)]


def test_04_finops_toolkit_584_an_export_of_another_month_is_refused_with_both(
    project: Project,
) -> None:
    deliver(project.put, Run(), costs("1", month="2023-12"))
    message = refused(project)
    assert "1 row of another billing month (2023-12)" in message
    assert "2024-01" in message


def test_04_finops_toolkit_584_an_export_that_starts_on_the_second_covers_fewer_days(
    project: Project,
) -> None:
    deliver(project.put, Run(), costs("1", "2"))
    load(project)
    run_info = {"submittedTime": "2024-02-09T00:00:00Z", "runId": "x"}
    dates = {"startDate": "2024-01-02T00:00:00", "endDate": "2024-01-31T00:00:00Z"}
    deliver(project.put, Run(number=2), costs("2"), changes={"runInfo": run_info | dates})
    assert "covers 2024-01-02 to 2024-01-31, fewer days" in refused(project)


def test_06_finops_toolkit_2105_renamed_columns_stay_two_columns_of_one_table(
    project: Project,
) -> None:
    for month, header in (("2024-01", "x_SkuMeterName"), ("2024-02", "SkuMeter")):
        rows = [row | {header: "D2s v3"} for row in costs("1", month=month)]
        deliver(project.put, Run(month), rows)
        load(project, month)
    assert project.query("SELECT x_skumetername, skumeter FROM azure ORDER BY billing_month") == [
        ("D2s v3", None),
        (None, "D2s v3"),
    ]


def test_07_opencost_2451_a_manifest_is_never_read_as_a_csv_file(project: Project) -> None:
    deliver(project.put, Run(layout="underscore"), costs("1"))
    deliver(project.put, Run(layout="one file", number=2), costs("2"), root="old/")
    project.put("old/contoso-daily/20240101-20240131/_manifest.json", b"{}")
    project.export["source"] += "/exports"
    load(project)
    assert total(project) == 1


def test_08_opencost_2794_an_overwritten_file_of_the_same_name_is_a_new_version(
    project: Project,
) -> None:
    run = Run(layout="run ids")
    deliver(project.put, run, costs("1"))
    load(project)
    later = Run(layout="run ids", submitted="2024-02-02T04:00:00")
    deliver(project.put, later, costs("1.25"))
    tick = project.tick(sensor="contoso_manifests")
    assert requested_months(tick) == ["2024-01"]
    load(project)
    assert total(project) == Decimal("1.25")


def test_09_opencost_a_file_that_is_listed_and_missing_fails_the_month(project: Project) -> None:
    folder = deliver(project.put, Run(), costs("1"), costs("2")).rpartition("/")[0]
    (project.source / folder / "part_0_0001.csv.gz").unlink()
    assert "does not exist, though the manifest lists it" in refused(project)


@pytest.mark.parametrize(("body", "suffix"), [("csv", "csv.gz"), ("csv.gz", "csv")])
def test_10_koku_5323_the_first_bytes_decide_whether_a_file_is_compressed(
    project: Project, body: str, suffix: str
) -> None:
    changes = {"dataRowCount": 1, "deliveryConfig": {"compressionMode": "GZip"}}
    deliver(project.put, Run(), file_bytes(costs("1"), body), suffix=suffix, changes=changes)
    if suffix == "csv":
        load(project)
        assert total(project) == 1
    else:  # a name that ends in .gz promises what a download can verify
        assert "the gzip data is damaged" in refused(project)


def test_11_kubecost_1178_gzip_in_several_members_is_read_whole(project: Project) -> None:
    header, _, rows = file_bytes(costs("1", "2"), "csv").partition(b"\r\n")
    body = gzip.compress(header + b"\r\n") + gzip.compress(rows)
    deliver(project.put, Run(), body, changes={"dataRowCount": 2})
    load(project)
    assert total(project) == 3


def test_12_open_finops_stack_4_without_a_manifest_the_newest_file_is_the_month(
    project: Project,
) -> None:
    deliver(project.put, Run(layout="one file"), costs("1"))
    outcome = load(project)
    assert "has no manifest" in outcome.metadata("manifest")["warnings"]
    deliver(project.put, Run(layout="one file", number=2), costs("1", "2"))
    assert load(project).outcomes()["billing_table"] == "loaded"
    assert total(project) == 3


def test_13_azure_rest_api_specs_22712_unknown_fields_of_a_manifest_are_tolerated(
    project: Project,
) -> None:
    changes = {"new": {"x": 1}, "deliveryConfig": [], "blobCount": None, "byteCount": "many"}
    deliver(project.put, Run(), costs("1"), changes=changes)
    load(project)
    assert total(project) == 1


def test_14_azure_docs_114125_history_comes_as_several_exports_each_of_its_month(
    project: Project,
) -> None:
    for month in ("2023-11", "2023-12", "2024-01"):
        deliver(project.put, Run(month, export=f"history-{month}"), costs("1", month=month))
        load(project, month)
    assert project.query("SELECT count(*), count(DISTINCT manifest_id) FROM azure") == [(3, 1)]


def test_15_bicep_types_az_1441_many_runs_on_one_day_are_normal(project: Project) -> None:
    for number in range(1, 30):
        run = Run(number=number, submitted=f"2024-02-02T03:{number:02}:00")
        deliver(project.put, run, costs(str(number)))
    load(project)
    assert total(project) == 29


def test_16_azure_sdk_for_net_34129_a_second_byte_order_mark_is_no_part_of_a_value(
    actual: Project,
) -> None:
    header, _, rest = file_bytes(usage_rows(Charge("1", "1")), "csv").partition(b"\r\n")
    body = header + b"\r\n\xef\xbb\xbf" + rest
    deliver(actual.put, ACTUAL, body, suffix="csv", changes={"dataRowCount": 1})
    load(actual)
    assert actual.query("SELECT subscriptionid FROM azure") == [
        ("00000000-1111-2222-3333-444444444444",)
    ]


def test_17_azure_powershell_20185_us_dates_are_read_as_us_dates(actual: Project) -> None:
    deliver(actual.put, ACTUAL, usage_rows(Charge("1", "1", day=12), Charge("1", "1", day=13)))
    load(actual)
    assert actual.query("SELECT date::DATE::TEXT FROM azure ORDER BY 1") == [
        ("2024-01-12",),
        ("2024-01-13",),
    ]


def test_18_kubecost_1988_an_export_that_switches_to_iso_dates_is_read(actual: Project) -> None:
    for month, agreement in (("2024-01", "EA"), ("2024-02", "pay as you go")):
        run = Run(month, dataset="ActualCost")
        deliver(actual.put, run, usage_rows(Charge("1", "1"), month=month, agreement=agreement))
        load(actual, month)
    assert actual.query("SELECT date::DATE::TEXT FROM azure ORDER BY 1") == [
        ("2024-01-03",),
        ("2024-02-03",),
    ]


def test_19_kubecost_1526_german_headers_in_another_order_are_matched_by_name(
    actual: Project,
) -> None:
    for month, agreement in (("2024-01", "pay as you go"), ("2024-02", "pay as you go, German")):
        rows = usage_rows(Charge("1", "2"), month=month, agreement=agreement)
        rows = [dict(reversed(row.items())) for row in rows] if "German" in agreement else rows
        deliver(actual.put, Run(month, dataset="ActualCost"), rows)
        load(actual, month)
    assert actual.query(
        "SELECT count(DISTINCT subscriptionid), count(DISTINCT metercategory), "
        "sum(costinbillingcurrency), count(date) FROM azure"
    ) == [(1, 1, 2, 2)]


def test_20_kubecost_917_the_usage_date_is_found_by_name_not_by_position(
    actual: Project,
) -> None:
    rows = usage_rows(Charge("1", "1"), agreement="pay as you go")
    rows = [{"InvoiceDate": "5/6/2020", **row} for row in rows]
    deliver(actual.put, ACTUAL, rows)
    load(actual)
    assert actual.query("SELECT date::DATE::TEXT, invoicedate FROM azure") == [
        ("2024-01-03", "5/6/2020")
    ]


def test_21_azure_docs_79040_digits_are_counted_and_never_lost_silently(
    project: Project,
) -> None:
    deliver(project.put, Run(), costs("0.1234567890123456789012345678"))
    assert 'set decimals = "round"' in refused(project)
    deliver(project.put, Run(number=2), costs("0.1234567890123456780000000000", "4.0E-7"))
    load(project)
    assert total(project) == Decimal("0.123457189012345678")


def test_22_koku_1486_a_tag_key_that_is_listed_once_per_value_keeps_them_all(
    actual: Project,
) -> None:
    tags = '"team": "red","Team": "Red","team": "blue"'
    deliver(actual.put, ACTUAL, usage_rows(Charge("1", "1", tags=tags)))
    load(actual)
    assert actual.query("SELECT tags['team'], tags['Team'] FROM azure") == [
        ('["red","blue"]', "Red")
    ]


def test_23_focus_converters_304_the_cost_has_another_name_under_each_agreement(
    actual: Project,
) -> None:
    for month, agreement in (("2024-01", "EA, older"), ("2024-02", "MCA"), ("2024-03", "EA")):
        rows = usage_rows(Charge("1.5", "1"), month=month, agreement=agreement)
        deliver(actual.put, Run(month, dataset="ActualCost"), rows)
        load(actual, month)
    assert total(actual, "costinbillingcurrency") == Decimal("4.5")
    assert actual.query("SELECT DISTINCT billingcurrency FROM azure") == [("USD",)]


def test_26_finops_toolkit_727_a_corrected_export_replaces_the_month_and_both_are_recorded(
    project: Project,
) -> None:
    for number, price in ((1, "100"), (2, "1")):
        rows = [row | {"ListCost": price} for row in costs("1")]
        deliver(project.put, Run(number=number), rows)
        load(project)
    assert total(project, "listcost") == 1
    assert project.ledger() == [
        (Run(number=1).run_id, "superseded"),
        (Run(number=2).run_id, "loaded"),
    ]


def test_30_finops_toolkit_607_a_column_without_any_value_is_legal(project: Project) -> None:
    deliver(project.put, Run(), [row | {"x_CostCenter": ""} for row in costs("1", "2")])
    load(project)
    assert project.query("SELECT count(x_costcenter), count(*) FROM azure") == [(0, 2)]


def test_31_finops_toolkit_779_more_columns_and_ids_as_paths_are_kept_as_they_are(
    project: Project,
) -> None:
    ids = {"x_New": "1", "x_SkuMeterId": f"{ENROLMENT}/Meters/ABC", "CapacityReservationId": "-2"}
    deliver(project.put, Run(), [row | ids for row in costs("1")])
    load(project)
    assert project.query("SELECT x_new, x_skumeterid, capacityreservationid FROM azure") == [
        ("1", f"{ENROLMENT}/Meters/ABC", "-2")
    ]


@pytest.mark.parametrize("agreement", ["CSP", "pay as you go"])  # an empty column, and none
def test_58_finops_toolkit_1203_a_month_without_billing_periods_is_its_folders_and_says_so(
    actual: Project, agreement: str
) -> None:
    rows = usage_rows(Charge("1", "1"), Charge("2", "2"), agreement=agreement)
    deliver(actual.put, ACTUAL, rows)
    warnings = load(actual).metadata("billing_table")["warnings"]
    assert "2 rows without billingperiodstartdate count as 2024-01, as the manifest and" in warnings
    assert total(actual, "costinbillingcurrency") == 3


def test_a_billing_period_that_begins_within_the_month_is_of_that_month(
    actual: Project,
) -> None:
    rows = usage_rows(Charge("1", "1"))
    rows[0].update(BillingPeriodStartDate="1/15/2024", BillingPeriodEndDate="2/14/2024")
    run = Run(dataset="ActualCost", days=("2024-01-15", "2024-02-14"), number=20)
    deliver(actual.put, run, rows)
    load(actual)
    assert actual.query("SELECT billing_month::TEXT FROM azure") == [("2024-01-01",)]


@pytest.mark.parametrize("rows", [[], [file_bytes([])], [b""]])
def test_an_empty_newest_run_is_the_month_with_the_check_that_says_so(
    project: Project, rows: list[bytes | list[Row]]
) -> None:
    deliver(project.put, Run(), costs("1"))
    load(project)
    deliver(project.put, Run(number=2), *rows, suffix="csv" if rows == [b""] else "csv.gz")
    outcome = load(project)
    assert project.query("SELECT count(*) FROM azure") == [(0,)]
    assert not outcome.checks()["billing_table.not_fewer_rows"]


def test_a_number_of_rows_that_the_files_do_not_have_is_refused(project: Project) -> None:
    deliver(project.put, Run(), costs("1"), changes={"dataRowCount": 5})
    assert "says that its files have 5 rows, but they have 1" in refused(project)


def test_a_newest_run_that_was_deleted_leaves_the_loaded_one_in_place(project: Project) -> None:
    deliver(project.put, Run(), costs("1"))
    deliver(project.put, Run(number=2), costs("1", "2"))
    load(project)
    shutil.rmtree(project.source / "exports" / Run(number=2).folder)
    outcome = load(project)
    assert "was submitted at" in json.dumps(outcome.metadata("manifest")["warnings"])
    assert total(project) == 3


def test_rows_of_another_scope_are_never_added(project: Project) -> None:
    deliver(project.put, Run(export="a"), focus_rows(Charge("1", "1")))
    deliver(project.put, Run(export="b", scope=ENROLMENT), focus_rows(Charge("1", "1")))
    assert "are of several scopes, which are never added up" in refused(project)
