import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest

from finops_dagster.demo.bill import CHANGED_PER_MILLE
from finops_dagster.demo.cur1_columns import CORE_HEADERS, EXTRA_HEADERS
from finops_dagster.demo.cur1_slots import SLOTS
from finops_dagster.demo.export import Version, write_version
from finops_dagster.demo.row_mix import planned_rows

Row = dict[str, str]
JANUARY = date(2024, 1, 1)
FIRST = Version(JANUARY, "20240201T050312Z", rows=3000)
LATER = Version(JANUARY, "20240209T050312Z", rows=3002, restated=True)

COST = "lineItem/UnblendedCost"
AMOUNT = "lineItem/UsageAmount"
KIND = "lineItem/LineItemType"


def part_texts(folder: Path, manifest: Path) -> list[str]:
    keys = json.loads(manifest.read_text("utf-8"))["reportKeys"]
    return [gzip.decompress((folder / key).read_bytes()).decode("utf-8") for key in keys]


def write(folder: Path, version: Version, columns: int = 125, seed: int = 7) -> list[str]:
    return part_texts(
        folder, write_version(folder, "cur", "daily", version, columns=columns, seed=seed)
    )


def rows_of(texts: list[str]) -> list[Row]:
    return [row for text in texts for row in csv.DictReader(io.StringIO(text))]


def pairs(rows: list[Row], kind: str) -> Iterator[tuple[Row, Row]]:
    """Every row of a type with the row before it."""
    return ((rows[n - 1], row) for n, row in enumerate(rows) if row[KIND] == kind)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return rows_of(write(tmp_path_factory.mktemp("first"), FIRST))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return rows_of(write(tmp_path_factory.mktemp("later"), LATER))


def test_the_same_seed_makes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    texts = [
        write(tmp_path / name, Version(JANUARY, "a", 300), columns=67, seed=seed)
        for name, seed in [("a", 7), ("b", 7), ("c", 8)]
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


# The digest may change with the data tables, never with the machine or the version of DuckDB.
PINNED = "7e0f9f6c5abd69390c73a26641244fc3e41680b2c382db912dbeb59423334787"


def test_the_bytes_are_those_of_every_other_machine(tmp_path: Path) -> None:
    version = Version(JANUARY, "20240201T050312Z", rows=1000, parts=1)
    (text,) = write(tmp_path, version, columns=205)
    assert sha256(text.encode()).hexdigest() == PINNED


def test_the_number_of_parts_changes_no_row(tmp_path: Path, first: list[Row]) -> None:
    version = Version(FIRST.month, FIRST.assembly_id, FIRST.rows, parts=3)
    assert rows_of(write(tmp_path, version)) == first


@pytest.mark.parametrize("columns", [67, 125, 205])
def test_every_part_has_the_header_the_manifest_lists(tmp_path: Path, columns: int) -> None:
    manifest = write_version(tmp_path, "cur", "daily", Version(JANUARY, "a", 40), columns=columns)
    listed = [f"{c['category']}/{c['name']}" for c in json.loads(manifest.read_text())["columns"]]
    assert len(listed) == columns
    for text in part_texts(tmp_path, manifest):
        assert next(csv.reader(io.StringIO(text))) == listed


def test_a_width_no_export_has_is_refused(tmp_path: Path) -> None:
    for columns in (len(CORE_HEADERS) - 1, len(CORE_HEADERS + EXTRA_HEADERS) + 1):
        with pytest.raises(ValueError, match="columns must be 67 to 205"):
            write_version(tmp_path, "", "daily", Version(JANUARY, "a", 10), columns=columns)


@pytest.mark.parametrize("rows, parts, restated", [(0, 2, False), (1, 3, True), (1001, 3, False)])
def test_the_parts_add_up_to_the_rows(
    tmp_path: Path, rows: int, parts: int, restated: bool
) -> None:
    texts = write(tmp_path, Version(JANUARY, "a", rows, parts, restated), columns=67)
    assert len(texts) == parts
    assert len(rows_of(texts)) == rows


def test_impossible_versions_are_refused() -> None:
    with pytest.raises(ValueError, match="first day"):
        Version(date(2024, 1, 2), "a", 10)
    with pytest.raises(ValueError, match="parts"):
        Version(JANUARY, "a", 10, parts=0)


def test_a_version_is_laid_out_as_aws_does(tmp_path: Path) -> None:
    version = Version(date(2023, 12, 1), "20240102T030405Z", rows=10)
    top = write_version(tmp_path, "finance/cur/", "daily", version, columns=67)
    month = tmp_path / "finance/cur/daily/20231201-20240101"
    assert top == month / "daily-Manifest.json"
    assert sorted(str(path.relative_to(month)) for path in month.rglob("*") if path.is_file()) == [
        "20240102T030405Z/daily-00001.csv.gz",
        "20240102T030405Z/daily-00002.csv.gz",
        "20240102T030405Z/daily-Manifest.json",
        "daily-Manifest.json",
    ]
    assert top.read_text() == (month / "20240102T030405Z/daily-Manifest.json").read_text()
    manifest = json.loads(top.read_text())
    assert manifest["assemblyId"] == "20240102T030405Z"
    assert manifest["billingPeriod"] == {
        "start": "20231201T000000.000Z",
        "end": "20240101T000000.000Z",
    }
    assert len(manifest["account"]) == 12


def test_the_prefix_may_be_empty_and_the_name_hold_what_aws_allows(tmp_path: Path) -> None:
    manifest = write_version(tmp_path, "", "o'(1)*.cur", Version(JANUARY, "a", 5, 1), columns=67)
    assert manifest == tmp_path / "o'(1)*.cur/20240101-20240201/o'(1)*.cur-Manifest.json"
    assert json.loads(manifest.read_text())["reportKeys"] == [
        "o'(1)*.cur/20240101-20240201/a/o'(1)*.cur-00001.csv.gz"
    ]
    assert len(rows_of(part_texts(tmp_path, manifest))) == 5


def test_a_new_version_stands_beside_the_old_one(tmp_path: Path) -> None:
    old = write(tmp_path, Version(JANUARY, "old", 50, 3), columns=67)
    manifest = write_version(tmp_path, "cur", "daily", Version(JANUARY, "new", 40), columns=67)
    assert json.loads(manifest.read_text())["assemblyId"] == "new"
    assert part_texts(tmp_path, manifest.parent / "old" / manifest.name) == old


def test_cells_are_of_the_type_the_manifest_gives(tmp_path: Path) -> None:
    version = Version(JANUARY, "a", 1000)
    manifest = write_version(tmp_path, "cur", "daily", version, columns=205)
    rows = rows_of(part_texts(tmp_path, manifest))
    types = {
        f"{column['category']}/{column['name']}": column["type"]
        for column in json.loads(manifest.read_text("utf-8"))["columns"]
    }
    seen = set()
    for header, kind in types.items():
        cells = [row[header] for row in rows]
        assert kind.startswith("Optional") or all(cells) or header in MAY_BE_EMPTY, header
        for cell in filter(None, cells):
            seen.add(kind)
            if kind.endswith("BigDecimal"):
                exponent = Decimal(cell).as_tuple().exponent
                assert isinstance(exponent, int) and exponent >= -18, (header, cell)
            elif kind == "DateTime":
                datetime.strptime(cell, "%Y-%m-%dT%H:%M:%SZ")
    assert seen == set(types.values())


# AWS types these as plain, but taxes, fees and refunds leave them empty.
MAY_BE_EMPTY = {
    "lineItem/UsageType",
    "lineItem/Operation",
    "lineItem/UnblendedRate",
    "lineItem/BlendedRate",
    "pricing/publicOnDemandCost",
    "pricing/publicOnDemandRate",
    "reservation/NormalizedUnitsPerReservation",
    "reservation/TotalReservedNormalizedUnits",
    "reservation/TotalReservedUnits",
    "reservation/UnitsPerReservation",
}


def test_costs_are_many_and_small_and_add_up_to_a_companys_bill(first: list[Row]) -> None:
    costs = [Decimal(row[COST]) for row in first]
    assert 1200 < sum(costs) < 3600
    assert sum(0 < abs(cost) < Decimal("0.01") for cost in costs) > 0.25 * len(costs)
    assert sum("E-" in row[COST] for row in first) > 0.03 * len(costs)
    for row in first:
        if row[KIND] == "Usage" and row["lineItem/UnblendedRate"]:
            exact = Decimal(row[AMOUNT]) * Decimal(row["lineItem/UnblendedRate"])
            assert abs(Decimal(row[COST]) - exact) <= Decimal("0.5E-10"), row


def test_the_bill_grows_over_the_years(tmp_path: Path) -> None:
    totals = []
    for year in (2022, 2026):
        rows = rows_of(write(tmp_path, Version(date(year, 6, 1), "a", 1000), columns=67))
        totals.append(sum(Decimal(row[COST]) for row in rows))
    assert totals == sorted(totals)
    assert totals[-1] > totals[0] * Decimal("1.2")


def test_more_than_half_of_the_cells_are_empty(first: list[Row]) -> None:
    cells = [cell for row in first for cell in row.values()]
    assert 0.5 < sum(cell == "" for cell in cells) / len(cells) < 0.7


def test_every_kind_of_row_is_there_and_text_needs_care(first: list[Row]) -> None:
    assert {row[KIND] for row in first} == {
        "Usage", "DiscountedUsage", "SavingsPlanCoveredUsage", "SavingsPlanNegation",
        "SavingsPlanRecurringFee", "RIFee", "EdpDiscount", "Credit", "Refund", "Tax", "Fee",
    }  # fmt: skip
    assert any(row["lineItem/UsageAccountId"].startswith("00") for row in first)
    assert {row["bill/BillingEntity"] for row in first} == {"AWS", "AWS Marketplace"}
    assert any({'"', ","} <= set(row["lineItem/LineItemDescription"]) for row in first)
    assert any(not row["resourceTags/user:team"].isascii() for row in first)


def test_the_billing_period_is_the_month_even_where_usage_is_older(first: list[Row]) -> None:
    assert {row["bill/BillingPeriodStartDate"] for row in first} == {"2024-01-01T00:00:00Z"}
    assert {row["bill/BillingPeriodEndDate"] for row in first} == {"2024-02-01T00:00:00Z"}
    older = [row for row in first if row["lineItem/UsageStartDate"] < "2024-01-01"]
    assert {row[KIND] for row in older} == {"Refund"}
    assert all(row["lineItem/UsageEndDate"] <= "2024-02-01T00:00:00Z" for row in first)


def test_line_item_ids_are_unique_inside_one_interval_only(first: list[Row]) -> None:
    ids = [row["identity/LineItemId"] for row in first]
    assert all(len(text) == 52 and text.isalnum() and text == text.lower() for text in ids)
    assert len(set(ids)) < len(ids)
    assert len(
        {(row["identity/LineItemId"], row["identity/TimeInterval"]) for row in first}
    ) == len(first)


def test_negations_take_back_covered_usage_row_by_row_and_plan_by_plan(first: list[Row]) -> None:
    balance: dict[str, Decimal] = defaultdict(Decimal)
    for covered, negation in pairs(first, "SavingsPlanNegation"):
        assert covered[KIND] == "SavingsPlanCoveredUsage"
        for header in ("lineItem/UsageAccountId", "lineItem/UsageType", "identity/TimeInterval"):
            assert covered[header] == negation[header]
        assert Decimal(covered[COST]) == -Decimal(negation[COST]) > 0
    for row in first:
        if row[KIND] in ("SavingsPlanCoveredUsage", "SavingsPlanNegation"):
            balance[row["savingsPlan/SavingsPlanARN"]] += Decimal(row[COST])
    assert set(balance.values()) == {Decimal(0)} and len(balance) == 2


def test_savings_plan_fees_pay_for_what_covered_usage_costs(first: list[Row]) -> None:
    effective: dict[str, Decimal] = defaultdict(Decimal)
    used: dict[str, Decimal] = defaultdict(Decimal)
    for row in first:
        plan = row["savingsPlan/SavingsPlanARN"]
        effective[plan] += Decimal(row["savingsPlan/SavingsPlanEffectiveCost"] or 0)
        used[plan] += Decimal(row["savingsPlan/UsedCommitment"] or 0)
        if row[KIND] == "SavingsPlanRecurringFee":
            assert Decimal(row[COST]) > Decimal(row["savingsPlan/UsedCommitment"]) > 0
    assert effective == used


def test_reservation_fees_pay_for_what_reserved_usage_costs(first: list[Row]) -> None:
    recurring: dict[str, Decimal] = defaultdict(Decimal)
    for row in first:
        arn = row["reservation/ReservationARN"]
        if row[KIND] == "DiscountedUsage":
            assert Decimal(row[COST]) == 0
            recurring[arn] -= Decimal(row["reservation/RecurringFeeForUsage"])
        elif row[KIND] == "RIFee":
            recurring[arn] += Decimal(row[COST]) - Decimal(row["reservation/UnusedRecurringFee"])
    assert len(recurring) == 2 and set(recurring.values()) == {Decimal(0)}


def test_discounts_are_six_percent_of_the_row_before(first: list[Row]) -> None:
    found = list(pairs(first, "EdpDiscount"))
    assert found
    for usage, discount in found:
        assert usage["discount/EdpDiscount"] == discount[COST]
        assert abs(Decimal(usage[COST]) * Decimal("-0.06") - Decimal(discount[COST])) < Decimal(
            "1E-9"
        )


def test_the_meters_fill_the_thousand_rows_that_repeat() -> None:
    assert len(planned_rows()) == SLOTS


def test_covered_usage_is_never_the_last_row(tmp_path: Path) -> None:
    cut = next(
        number
        for number, row in enumerate(planned_rows())
        if row.meter.kind == "SavingsPlanNegation"
    )
    rows = rows_of(write(tmp_path, Version(JANUARY, "a", cut, 1), columns=67))
    assert len(rows) == cut
    assert rows[-1][KIND] == "Usage"


def test_a_restated_month_ends_in_late_refunds_and_credits(later: list[Row]) -> None:
    assert LATER.late_rows == 7
    assert {row[KIND] for row in later[-7:]} == {"Refund", "Credit"}
    assert all(Decimal(row[COST]) < 0 for row in later[-7:])


def test_a_restated_month_has_invoice_ids(first: list[Row], later: list[Row]) -> None:
    assert {row["bill/InvoiceId"] for row in first} == {""}
    invoices = {(row["lineItem/LegalEntity"], row["bill/InvoiceId"]) for row in later}
    assert len(invoices) == 2 and all(invoice for _, invoice in invoices)


def test_a_restated_month_keeps_its_other_rows_but_for_a_few_amounts(
    first: list[Row], later: list[Row]
) -> None:
    kept = list(zip(first, later[:-7], strict=False))
    assert len(kept) == 2995
    new = {"identity/LineItemId", "bill/InvoiceId"}
    changed = []
    for old, row in kept:
        assert old["identity/LineItemId"] != row["identity/LineItemId"]
        differing = {header for header in old if old[header] != row[header]} - new
        if differing:
            changed.append(row)
            assert AMOUNT in differing
            ratio = Decimal(row[AMOUNT]) / Decimal(old[AMOUNT]) * 1000
            assert 1000 < ratio <= CHANGED_PER_MILLE + 1
    assert 0 < len(changed) < 30
    assert {row[KIND] for row in changed} <= {"Usage", "EdpDiscount"}
