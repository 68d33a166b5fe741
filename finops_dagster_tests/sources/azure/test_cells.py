"""The columns and cells of Azure's files, in every agreement's spelling."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.sources.azure.format import azure_formats
from finops_dagster_tests.azure import (
    AGREEMENTS,
    BILL,
    BILLED,
    EFFECTIVE,
    Charge,
    Row,
    Run,
    costs,
    deliver,
    file_bytes,
    focus_rows,
    usage_rows,
)
from finops_dagster_tests.project import ROOT, MonthRun, Project

DATA = ROOT.parent / "shared/data"


def load(project: Project, month: str = "2024-01", export: str = "contoso") -> MonthRun:
    return project.load(month, export=export)


def load_rows(project: Project, *rows: Row, month: str = "2024-01", **run: str) -> MonthRun:
    """Deliver rows of the export's format as one file, and load them."""
    datasets = {"focus": "FocusCost", "actual": "ActualCost", "amortized": "AmortizedCost"}
    dataset = datasets[project.export["format"]]
    deliver(project.put, Run(month=month, dataset=dataset, **run), rows)
    return load(project, month)


def refused(project: Project) -> str:
    run = project.materialize(export="contoso")
    assert not run.success
    return run.error


@pytest.fixture
def actual(project: Project) -> Project:
    """Return the project with an export of actual costs."""
    project.export["format"] = "actual"
    return project


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_the_roles_of_columns_are_the_same_under_every_agreement(
    actual: Project, agreement: str
) -> None:
    outcome = load_rows(actual, *usage_rows(*BILL, agreement=agreement))
    assert actual.query(
        "SELECT sum(costinbillingcurrency), min(billingcurrency), min(date)::TEXT, "
        "min(subscriptionid), max(metercategory), min(tags['env']) FROM azure"
    ) == [
        (
            BILLED,
            "USD",
            "2024-01-03 00:00:00",
            "00000000-1111-2222-3333-444444444444",
            "Virtual Machines",
            "prod",
        )
    ]
    assert outcome.metadata("billing_table")["currency"] == "USD"


@pytest.mark.thorough
def test_months_of_several_agreements_follow_each_other_in_one_table(actual: Project) -> None:
    months = [f"2024-{number:02}" for number in range(1, len(AGREEMENTS) + 1)]
    for month, agreement in zip(months, AGREEMENTS, strict=True):
        load_rows(actual, *usage_rows(*BILL, agreement=agreement, month=month), month=month)
    assert actual.query(
        "SELECT billing_month::TEXT, sum(costinbillingcurrency) FROM azure GROUP BY 1 ORDER BY 1"
    ) == [(f"{month}-01", BILLED) for month in months]


def test_actual_amortized_and_focus_of_one_bill_have_the_sums_that_belong_together(
    project: Project,
) -> None:
    project.add_export(name="actual", format="actual", table="actual")
    project.add_export(name="amortized", format="amortized", table="amortized")
    deliver(project.put, Run(export="focus"), focus_rows(*BILL))
    deliver(project.put, Run(export="actual", dataset="ActualCost"), usage_rows(*BILL))
    deliver(
        project.put,
        Run(export="amortized", dataset="AmortizedCost"),
        usage_rows(*BILL, amortized=True),
    )
    for export in ("contoso", "actual", "amortized"):
        load(project, export=export)
    assert project.query("SELECT sum(billedcost), sum(effectivecost), count(*) FROM azure") == [
        (BILLED, EFFECTIVE, 6)
    ]
    for table, total in (("actual", BILLED), ("amortized", EFFECTIVE)):
        assert project.query(f"SELECT sum(costinbillingcurrency), count(*) FROM {table}") == [
            (total, 5)
        ]
    assert project.query(
        "SELECT sum(costinbillingcurrency) FROM actual WHERE chargetype = 'Purchase'"
    ) == [(120,)]


def test_a_file_with_dates_of_both_orders_is_refused_with_line_and_column(
    actual: Project,
) -> None:
    rows = usage_rows(*BILL[:2])
    rows[1]["Date"] = "2024-01-04"
    deliver(actual.put, Run(dataset="ActualCost"), rows, suffix="csv")
    assert (
        "line 3, column \"Date\": '2024-01-04' cannot be kept exactly as TIMESTAMP; the first time "
        "in the file has the format %m/%d/%Y"
    ) in refused(actual)
    rows[0].update(Date="2024-01-04", BillingPeriodStartDate="", BillingPeriodEndDate="")
    deliver(actual.put, Run(dataset="ActualCost", number=2), rows, suffix="csv")
    assert "line 3, column \"BillingPeriodStartDate\": '1/1/2024' cannot be kept" in refused(actual)


def test_each_file_of_a_month_has_its_own_order_of_dates(actual: Project) -> None:
    run, iso = Run(dataset="ActualCost"), usage_rows(BILL[1])
    iso[0].update(
        Date="2024-01-03", BillingPeriodStartDate="2024-01-01", BillingPeriodEndDate="2024-01-31"
    )
    deliver(actual.put, run, usage_rows(BILL[0]), iso)
    load(actual)
    assert actual.query("SELECT DISTINCT date::TEXT, count(*) FROM azure GROUP BY 1") == [
        ("2024-01-03 00:00:00", 2)
    ]


def test_a_year_of_two_digits_is_refused(actual: Project) -> None:
    rows = usage_rows(*BILL[:2])
    rows[1]["Date"] = "1/4/24"
    deliver(actual.put, Run(dataset="ActualCost"), rows)
    assert "column \"Date\": '1/4/24' cannot be kept exactly as TIMESTAMP" in refused(actual)


def test_tags_are_maps_with_and_without_braces_and_a_repeated_key_keeps_its_values(
    project: Project,
) -> None:
    tags = [
        '{"env": "prod", "Env": "x,y"}',
        '"env": "prod","Env": "x,y"',
        '"env": "a","team": "{}:[]","env": "b \\"c\\"","n": 1',
        "",
    ]
    load_rows(project, *focus_rows(*(Charge("1", "1", tags=text) for text in tags)))
    assert project.query("SELECT map_entries(tags) FROM azure") == [
        ([{"key": "env", "value": "prod"}, {"key": "Env", "value": "x,y"}],),
        ([{"key": "env", "value": "prod"}, {"key": "Env", "value": "x,y"}],),
        (
            [
                {"key": "env", "value": '["a","b \\"c\\""]'},
                {"key": "n", "value": "1"},
                {"key": "team", "value": "{}:[]"},
            ],
        ),
        (None,),
    ]


def test_tags_that_are_neither_pairs_nor_json_are_refused_with_line_and_column(
    project: Project,
) -> None:
    deliver(project.put, Run(), focus_rows(Charge("1", "1", tags="env=prod")))
    assert "line 2, column \"Tags\": 'env=prod' cannot be kept exactly" in refused(project)


def test_times_without_seconds_and_texts_for_no_value_are_kept(project: Project) -> None:
    rows = costs("1")
    rows[0].update(
        BillingPeriodStart="2024-01-01T00:00Z",
        ChargePeriodStart="2024-01-03T00:00Z",
        SkuPriceId="-2",
        x_InvoiceSectionId="Unassigned",
        x_PricingCurrency="EUR",
    )
    load_rows(project, *rows)
    assert project.query(
        "SELECT billingperiodstart::TEXT, chargeperiodstart::TEXT, skupriceid, x_invoicesectionid, "
        "x_billedcostinusd, x_skuterm FROM azure"
    ) == [("2024-01-01 00:00:00", "2024-01-03 00:00:00", "-2", "Unassigned", 1, "12")]


def test_amounts_of_28_decimals_are_refused_or_rounded_by_the_setting(project: Project) -> None:
    deliver(project.put, Run(), costs("0.1234567890123456789012345678"))
    assert "cannot be kept exactly" in refused(project)
    project.export["decimals"] = "round"
    load(project)
    assert project.query("SELECT billedcost FROM azure") == [(Decimal("0.123456789012345679"),)]


def test_costs_in_several_currencies_have_a_total_each(project: Project) -> None:
    outcome = load_rows(project, *focus_rows(Charge("1", "1"), Charge("2", "2", currency="EUR")))
    assert outcome.metadata("billing_table")["currency"] == "EUR, USD"
    assert outcome.checks()["billing_table.one_currency"]
    assert project.query("SELECT cost_by_currency FROM finops_state.manifests") == [
        ({"EUR": 2, "USD": 1},)
    ]


def test_renamed_columns_of_focus_are_other_columns_of_one_table(project: Project) -> None:
    for number, header in enumerate(("x_InvoiceId", "InvoiceId"), 1):
        rows = [
            {(header if name == "InvoiceId" else name): cell for name, cell in row.items()}
            for row in focus_rows(Charge("1", "1", invoice=f"G0{number}"), month=f"2024-0{number}")
        ]
        outcome = load_rows(project, *rows, month=f"2024-0{number}")
        assert outcome.metadata("billing_table")["final"] is True
    assert project.query("SELECT x_invoiceid, invoiceid FROM azure ORDER BY billing_month") == [
        ("G01", None),
        (None, "G02"),
    ]


@pytest.mark.parametrize(
    ("account", "invoice", "final"),
    [("profile", "", False), ("profile", "G01", True), ("enrolment", "", None)],
)
def test_a_month_is_final_when_its_costs_have_invoices_which_an_enrolment_never_has(
    project: Project, account: str, invoice: str, final: bool | None
) -> None:
    rows = focus_rows(Charge("1", "1", invoice=invoice))
    if account == "enrolment":
        rows[0]["BillingAccountId"] = "/providers/Microsoft.Billing/billingAccounts/0123456"
    assert load_rows(project, *rows).metadata("billing_table").get("final") is final


def test_a_second_byte_order_mark_before_the_first_row_is_no_part_of_it(project: Project) -> None:
    header, _, rest = file_bytes(costs("1.5", "2"), "csv").partition(b"\r\n")
    deliver(
        project.put,
        Run(),
        header + b"\r\n\xef\xbb\xbf" + rest,
        suffix="csv",
        changes={"dataRowCount": 2},
    )
    load(project)
    assert project.query("SELECT sum(billedcost) FROM azure") == [(Decimal("3.5"),)]


def test_the_real_export_of_an_enrolment_is_loaded_exactly(actual: Project) -> None:
    file = DATA / "focus_converters/azure-ea-export.csv"
    if not file.exists():
        pytest.skip("the real export of an enrolment is not part of the project")
    run = Run(month="2023-09", dataset="ActualCost", number=5)
    actual.export["start_month"] = "2023-09"
    deliver(actual.put, run, file.read_bytes(), suffix="csv", changes={"dataRowCount": 27})
    outcome = load(actual, "2023-09")
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"))))
    total = sum(Decimal(row["CostInBillingCurrency"]) for row in rows)
    assert actual.query("SELECT count(*), sum(costinbillingcurrency) FROM azure") == [(27, total)]
    assert outcome.metadata("billing_table")["currency"] == "CAD"
    assert actual.query("SELECT DISTINCT tags['tagB'], billingperiodenddate::TEXT FROM azure") == [
        ("valueB", "2023-09-30 00:00:00")
    ]


def test_azures_rows_of_the_focus_sample_are_loaded_exactly(project: Project) -> None:
    file = DATA / "focus_sample/focus_sample.csv"
    if not file.exists():
        pytest.skip("the FOCUS sample is not part of the project")
    rows = [
        row
        for row in csv.DictReader(io.StringIO(file.read_text("utf-8")))
        if row["ProviderName"] == "Microsoft"
    ]
    load_rows(project, *rows, month="2024-09")
    total = sum(Decimal(row["BilledCost"]) for row in rows)
    assert project.query("SELECT count(*), sum(billedcost) FROM azure") == [(len(rows), total)]


def test_a_run_that_does_not_say_its_dataset_is_told_by_the_header_of_its_files(
    project: Project,
) -> None:
    deliver(project.put, Run(manifest="2021-01-01"), usage_rows(*BILL))
    assert "no column gives billedcost, the cost of the month; check the format" in refused(project)


@pytest.mark.parametrize("version", ["1.0", "1.2-preview"])
def test_every_column_that_microsoft_documents_has_its_type(version: str) -> None:
    file = DATA / f"FocusCost_{version}.json"
    if not file.exists():
        pytest.skip("Microsoft's list of the columns is not part of the project")
    focus = azure_formats()["focus"]
    types = {"Decimal": SqlType.MONEY, "DateTime": SqlType.TIME}
    for column in json.loads(file.read_text())["Columns"]:
        name, expected = column["ColumnName"], types.get(column["DataType"])
        # It is a unit, whatever the list says.
        expected = SqlType.TEXT if name == "ConsumedUnit" else expected
        found = focus.sql_type(name, None)
        texts = (None, SqlType.TEXT, SqlType.TEXT_MAP)
        assert found == expected if expected else found in texts, name
