"""The keys of a report's document, which page and files read."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from finops_dagster.reports.document import AMOUNTS, INDEXES, TABLES, empty_document
from finops_dagster_tests.reports.months import Months, charge

# The document that the tests of the page show.
SMALL_BILL = json.loads(Path(__file__).with_name("small_bill.json").read_text(encoding="utf-8"))
_LISTS = ("accounts", "services", "regions", "versions")


def test_an_empty_document_has_every_table_and_every_list_that_its_columns_name():
    document = empty_document()
    for table, columns in TABLES.items():
        assert document[table] == {column: [] for column in columns}
        assert AMOUNTS & set(columns)
    assert all(document[name] == [] for name in INDEXES.values())


def test_a_document_has_the_keys_that_the_page_reads(tmp_path: Path) -> None:
    months = Months(tmp_path)
    months.write("2025-01", [charge("1", ChargePeriodStart=datetime(2025, 1, 2))])
    document = json.loads(json.dumps(months.document()))
    assert document.keys() == SMALL_BILL.keys()
    assert document["left_out"].keys() == SMALL_BILL["left_out"].keys()
    for table in TABLES:
        assert document[table].keys() == SMALL_BILL[table].keys(), table
    for name in _LISTS:
        assert document[name][0].keys() == SMALL_BILL[name][0].keys(), name
    assert Decimal(document["costs"]["billed"][0]).scaleb(-document["scale"]) == 1
