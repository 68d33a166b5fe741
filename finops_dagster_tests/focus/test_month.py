"""A month's charges are derived from its bill by a mapping, add up, and replace the old ones whole.

The mappings here are small ones of two or three kinds. Those of the vendors have their own tests.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from logging import Handler
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pytest

from finops_dagster.billing.columns import Sql, SqlType, literal
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, ReconciliationError, StageMissing
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.entries import Entry
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Input, Kind, Lookup
from finops_dagster.focus.month import ChargesRecord, FocusDerivation
from finops_dagster.lake import FolderLake, footer_texts_of_version, replacing_lake_file
from finops_dagster.progress import run_logger
from finops_dagster.tables.database import DuckDB

JANUARY = BillingMonth(2024, 1)
COSTS = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
LINE_ITEMS = """
    SELECT * FROM (VALUES
        ('Usage', 'EUR', 1.5, 3.0, MAP {'region': 'eu-west-1'}, 'a', 'keep'),
        ('Usage', 'USD', 0.000000000000000001, 0, MAP {'region': ''}, NULL, 'keep'),
        ('Fee', 'EUR', 10, 1, MAP {}, 'b', NULL),
        ('Memo', 'EUR', 2.25, 1, MAP {}, 'b', NULL)
    ) AS bill(line_type, currency, cost, quantity, details, service, colour)
"""
MAPPING = FocusMapping(
    "test",
    inputs=[
        Input("kind_of_line", spellings=("line_type",)),
        Input("currency"),
        Input("cost", SqlType.MONEY),
        Input("quantity", SqlType.MONEY),
        Input("region", spellings=("details[region]",)),
        Input("never_there"),
    ],
    kinds=[
        Kind(
            "fee",
            "kind_of_line = 'Fee'",
            (
                Charge("purchase", {"EffectiveCost": "0", "ChargeCategory": "'Purchase'"}),
                Charge("unused", {"BilledCost": "0"}, when="cost > 5"),
            ),
        ),
        Kind("memo", "kind_of_line = 'Memo'", moved="a memo is no charge"),
        Kind("usage", "true", (Charge("usage"),)),
    ],
    columns={
        **{name: Expression("cost") for name in COSTS},
        "BillingCurrency": Expression("currency"),
        "ChargeCategory": Expression("'Usage'"),
        "PricingQuantity": Expression("quantity"),
        "RegionId": Expression("region"),
        "RegionName": Expression("never_there"),
    },
    derived={"ListUnitPrice": Expression("ListCost / nullif(PricingQuantity, 0)")},
    headline="cost",
    amortized="cost",
    currency="currency",
)


class Lakeside:
    """A lake with the bill of one month, and the derivation of its charges."""

    def __init__(self, root: Path) -> None:
        self.lake = FolderLake(root)

    def bill(self, manifest_id: str = "v1", line_items: str = LINE_ITEMS) -> None:
        """Write the month's bill as the stage `parquet` does."""
        with duckdb.connect() as connection:
            row = connection.execute(f"SELECT count(*), sum(cost) FROM ({line_items})").fetchone()
            version = LoadedVersion(manifest_id, Totals.from_result_row(row))
            query = Sql(
                f"SELECT DATE '2024-01-01' AS billing_month, {literal(manifest_id)} AS manifest_id,"
                f" * FROM ({line_items})"
            )
            file = self.lake.file("acme", JANUARY)
            with replacing_lake_file(connection, query, file, footer_texts_of_version(version)):
                pass

    def derivation(self, mapping: FocusMapping = MAPPING) -> FocusDerivation:
        return FocusDerivation(self.lake, DuckDB(), mapping, {"": "acme"}, JANUARY)

    def derive(self, mapping: FocusMapping = MAPPING) -> ChargesRecord:
        with self.derivation(mapping).replacing_month("run") as month:
            return month

    def charges(self, columns: str) -> list[tuple[Any, ...]]:
        path = self.derivation().charges_file.local_path()
        return duckdb.execute(
            f"SELECT {columns} FROM read_parquet({literal(str(path))}) ORDER BY ALL"
        ).fetchall()


@pytest.fixture
def lakeside(tmp_path: Path) -> Lakeside:
    lakeside = Lakeside(tmp_path)
    lakeside.bill()
    return lakeside


def test_a_line_item_becomes_the_charges_of_its_kind(lakeside: Lakeside) -> None:
    lakeside.derive()
    assert lakeside.charges("x_rule, ChargeCategory, BilledCost, EffectiveCost") == [
        ("purchase", "Purchase", Decimal(10), Decimal(0)),
        ("unused", "Usage", Decimal(0), Decimal(10)),
        ("usage", "Usage", Decimal("1e-18"), Decimal("1e-18")),
        ("usage", "Usage", Decimal("1.5"), Decimal("1.5")),
    ]


def test_an_input_has_several_spellings_and_an_absent_or_empty_one_is_null(
    lakeside: Lakeside,
) -> None:
    lakeside.derive()
    assert lakeside.charges("DISTINCT RegionId, RegionName") == [("eu-west-1", None), (None, None)]


def test_columns_that_the_mapping_does_not_read_pass_through_with_their_names(
    lakeside: Lakeside,
) -> None:
    lakeside.derive()
    assert lakeside.charges("DISTINCT x_colour") == [("keep",), (None,)]
    assert lakeside.charges("DISTINCT x_export, x_manifest_id, CAST(x_billing_month AS TEXT)") == [
        ("acme", "v1", "2024-01-01")
    ]


def test_a_charge_names_the_line_items_that_it_is_made_of(lakeside: Lakeside) -> None:
    lakeside.derive()
    lines = lakeside.charges("x_rule, x_source_line_items")
    assert lines == [("purchase", ["3"]), ("unused", ["3"]), ("usage", ["1"]), ("usage", ["2"])]


def test_the_record_of_the_month_has_totals_sources_and_entries(lakeside: Lakeside) -> None:
    derived = lakeside.derive()
    record = ChargesRecord.from_file(lakeside.derivation().charges_file)
    assert record == derived
    assert (record.version.manifest_id, record.bill_version_ids) == ("v1", {"acme": "v1"})
    assert record.version.totals.costs == {"EUR": Decimal("11.5"), "USD": Decimal("1e-18")}
    assert record.entries == [
        Entry("memo", "a memo is no charge", "EUR", 1, Decimal("2.25"), Decimal("2.25"))
    ]


def test_keys_that_a_lookup_does_not_have_are_counted(lakeside: Lakeside, tmp_path: Path) -> None:
    table = tmp_path / "services.csv"
    table.write_text("service,name\na,Service A\n")
    mapping = replace(
        MAPPING,
        inputs=[*MAPPING.inputs, Input("service")],
        lookups=[Lookup("service", str(table), ("service",))],
        columns={
            **MAPPING.columns,
            "ServiceName": Expression("coalesce(service_name, service)"),
        },
    )
    assert lakeside.derive(mapping).unknown == {"service": {"b": 2}}
    assert lakeside.charges("DISTINCT ServiceName") == [("Service A",), ("b",), (None,)]


def test_a_lookup_reads_what_those_before_it_found(lakeside: Lakeside, tmp_path: Path) -> None:
    """One that is asked only if the other has no answer counts what neither knows."""
    for name, line in {"first": "a,Service A", "second": "b,Service B"}.items():
        (tmp_path / f"{name}.csv").write_text(f"service_id,name\n{line}\n")
    mapping = replace(
        MAPPING,
        inputs=[*MAPPING.inputs, Input("service")],
        lookups=[
            Lookup("first", str(tmp_path / "first.csv"), ("service",)),
            Lookup(
                "second",
                str(tmp_path / "second.csv"),
                ("CASE WHEN NOT first_is_known THEN service END",),
            ),
        ],
        columns={**MAPPING.columns, "ServiceName": Expression("coalesce(first_name, second_name)")},
    )
    assert lakeside.derive(mapping).unknown == {"first": {"b": 2}, "second": {}}
    assert lakeside.charges("DISTINCT ServiceName") == [("Service A",), ("Service B",), (None,)]


def with_kinds(*kinds: Kind, **fields: Any) -> FocusMapping:
    return replace(MAPPING, kinds=kinds, **fields)


HALF: Mapping[str, str] = {"BilledCost": "cost / 2"}
REST = Kind("rest", "true", (Charge("rest"),))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (with_kinds(Kind("usage", "true", (Charge("half", HALF),))), "differ from the bill"),
        (
            with_kinds(Kind("fee", "cost > 5", (Charge("fee", when="false"),)), REST),
            "1 line item of the kind 'fee' became 0 charges of the rule",
        ),
        (
            with_kinds(Kind("memo", "cost > 5", moved="moved", cancels="memos"), REST),
            "the billed costs that memos moves do not cancel out: 10 EUR is left",
        ),
        (with_kinds(REST, headline="cost * 2"), "the lake has 4 rows"),
    ],
)
def test_charges_that_do_not_add_up_leave_the_old_month(
    lakeside: Lakeside, mapping: FocusMapping, message: str
) -> None:
    lakeside.derive()
    before = lakeside.derivation().charges_file.local_path().read_bytes()
    with pytest.raises(ReconciliationError, match=message):
        lakeside.derive(mapping)
    assert lakeside.derivation().charges_file.local_path().read_bytes() == before


def test_what_kinds_move_among_each_other_cancels(lakeside: Lakeside) -> None:
    lakeside.bill(
        line_items="SELECT * FROM (VALUES ('Covered', 'EUR', 7.0), ('Negation', 'EUR', -6.5))"
        " AS bill(line_type, currency, cost)"
    )
    left_over = (
        "SELECT 'Left over' AS kind_of_line, currency, sum(cost) AS cost, 0 AS line_number "
        "FROM bill GROUP BY currency HAVING sum(cost) <> 0"
    )
    group = {"moved": "the pair cancels", "cancels": "pairs"}
    mapping = with_kinds(
        Kind(
            "covered",
            "kind_of_line = 'Covered'",
            (Charge("covered", {"BilledCost": "0", "EffectiveCost": "0"}),),
            **group,
        ),
        Kind("negation", "kind_of_line = 'Negation'", **group),
        Kind("left over", "true", (Charge("left over"),), is_extra=True, **group),
        extra_lines=left_over,
    )
    record = lakeside.derive(mapping)
    assert lakeside.charges("x_rule, BilledCost") == [
        ("covered", Decimal(0)),
        ("left over", Decimal("0.5")),
    ]
    assert {entry.kind: entry.billed for entry in record.entries} == {
        "covered": Decimal(7),
        "negation": Decimal("-6.5"),
        "left over": Decimal("-0.5"),
    }


def test_a_month_is_current_until_its_bill_or_the_mapping_changes(lakeside: Lakeside) -> None:
    assert lakeside.derivation().up_to_date_record() is None
    record = lakeside.derive()
    assert lakeside.derivation().up_to_date_record() == record
    changed = replace(MAPPING, columns={**MAPPING.columns, "Tags": Expression("MAP {}")})
    assert lakeside.derivation(changed).up_to_date_record() is None
    lakeside.bill("v2")
    assert lakeside.derivation().up_to_date_record() is None


def test_a_file_without_the_totals_of_its_footer_is_not_current(lakeside: Lakeside) -> None:
    record = lakeside.derive()
    file = lakeside.derivation().charges_file
    with duckdb.connect() as connection:
        rows = Sql(f"FROM read_parquet({literal(file.location)}) WHERE x_rule = 'usage'")
        with replacing_lake_file(connection, rows, file, record.footer_texts("acme")):
            pass
    assert lakeside.derivation().up_to_date_record() is None


def test_without_its_bill_a_month_cannot_be_derived(lakeside: Lakeside) -> None:
    lakeside.lake.file("acme", JANUARY).path.unlink()
    with pytest.raises(StageMissing, match=r"acme-2024-01.parquet is missing or damaged"):
        lakeside.derive()


def test_a_second_derivation_waits_for_the_first(lakeside: Lakeside) -> None:
    """Else both would write the same part of a file, and one would rename the other's."""
    waits_or_ended, handler = Event(), Handler()
    handler.emit = lambda _: waits_or_ended.set()  # type: ignore[method-assign]

    def derive() -> None:
        lakeside.derive()
        waits_or_ended.set()

    run_logger().addHandler(handler)
    second = Thread(target=derive)
    try:
        with lakeside.derivation().replacing_month("first") as first:
            second.start()
            waits_or_ended.wait()
    finally:
        second.join()
        run_logger().removeHandler(handler)
    record = ChargesRecord.from_file(lakeside.derivation().charges_file)
    assert record is not None
    assert first.version.run_id == "first"
    assert record.version.run_id == "run"
    assert lakeside.lake.unfinished_files("focus/acme") == []


def test_charges_of_a_bill_that_was_replaced_meanwhile_do_not_replace_the_old_ones(
    lakeside: Lakeside,
) -> None:
    old = lakeside.derive()
    with (
        pytest.raises(BillError, match="replaced by version v2 while charges were derived from"),
        lakeside.derivation().replacing_month("slow"),
    ):
        lakeside.bill("v2")
    assert ChargesRecord.from_file(lakeside.derivation().charges_file) == old


def test_a_full_disk_is_named_and_the_old_charges_stay(lakeside: Lakeside) -> None:
    old, limits = lakeside.derive(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(duckdb.Error) as error:
            lakeside.derive()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    part = f"{lakeside.derivation().charges_file.location}.part"
    assert f"{part} cannot be written: it would be larger than" in str(
        memory_or_disk_problem(error.value)
    )
    assert ChargesRecord.from_file(lakeside.derivation().charges_file) == old
