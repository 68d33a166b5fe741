"""What Dagster's UI shows of a table: where it is, what its columns mean, and bar charts."""

import csv
import re
import tomllib
from decimal import Decimal

import dagster as dg
import pytest
from pydantic import ValidationError

from finops_dagster.pipeline.bar_charts import bar, cost_by_category
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import ROOT, Project


def descriptions(schema: dg.TableSchema) -> dict[str, str | None]:
    return {column.name: column.description for column in schema.columns}


def deliver(project: Project, month: str, cost: str, currency: str = "USD") -> None:
    cells = {"lineItem__UnblendedCost": cost, "lineItem__CurrencyCode": currency}
    headers = (*HEADERS, "lineItem/CurrencyCode")
    project.deliver([line_item(month, **cells)], month=month, headers=headers)


def test_a_table_says_where_it_is_what_its_columns_mean_and_what_its_months_cost(
    focus: Project,
) -> None:
    deliver(focus, "2024-01", "80")
    focus.load(stages=["manifest", "staged_files", "billing_table"])
    deliver(focus, "2024-02", "100")
    run = focus.load("2024-02")
    table, charges = run.metadata("billing_table"), run.metadata("focus")
    assert table["dagster/table_name"] == "finops.main.aws_billing_data"
    assert table["dagster/uri"] == f"file://{focus.database_file}"
    assert run.metadata("parquet")["dagster/uri"] == f"file://{focus.parquet_path('2024-02')}"
    assert run.metadata("manifest")["dagster/uri"].endswith("acme-cur-Manifest.json")
    assert {run.metadata(s)["currency"] for s in ("staged_files", "parquet", "focus")} == {"USD"}
    assert None not in descriptions(table["dagster/column_schema"]).values()
    assert descriptions(charges["dagster/column_schema"])["BilledCost"].startswith("What the")
    assert table["cost_by_month"].splitlines()[2:] == [
        f"| 2024-01 | USD | {'█' * 16} | 80.00 |",
        f"| 2024-02 | USD | {'█' * 20} | 100.00 |",
    ]
    assert "| USD | " + "█" * 20 in charges["cost_by_category"]
    unchanged = focus.load("2024-02")
    for stage, key in {"billing_table": "cost_by_month", "focus": "cost_by_category"}.items():
        assert unchanged.metadata(stage)[key] == run.metadata(stage)[key]


def test_the_descriptions_are_of_columns_that_aws_has() -> None:
    with (ROOT / "finops_dagster/demo/cur1.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["family"] + name for row in rows for name in row["names"].split("|")]
    known = {re.sub("[^a-z0-9]", "", name.lower()) for name in names}
    tables = tomllib.loads((ROOT / "finops_dagster/pipeline/columns.toml").read_text())
    # The maps of CUR 2.0, and what an export has only if AWS is asked for it, or gives discounts.
    others = "product discount resourcetags costcategory billpayeraccountname "
    others += "lineitemusageaccountname lineitemnetunblendedrate lineitemnetunblendedcost "
    others += "splitlineitemsplitcost splitlineitemunusedcost"
    assert tables["aws"].keys() - known - {*others.split()} == set()


def test_bars_are_proportional_and_many_categories_are_added_up() -> None:
    assert bar(Decimal(1), Decimal(2)) == "█" * 10
    assert bar(Decimal("0.0001"), Decimal(2)) == "▏"
    assert bar(Decimal(-1), Decimal(2)) == ""
    assert bar(Decimal(0), Decimal(0)) == ""
    rows = [("USD", f"c{n:02}", Decimal(n), Decimal(2 * n)) for n in range(1, 16)]
    text = cost_by_category([*rows, ("EUR", "|x", Decimal(-1), Decimal(-1))]).value
    lines = text.splitlines()[2:]
    assert lines[0] == r"| `\x7cx` | EUR |  | -1.00 | -1.00 |"
    assert lines[1] == f"| c15 | USD | {'█' * 20} | 15.00 | 30.00 |"
    assert lines[-1] == "| 3 others | USD | ████████ | 6.00 | 12.00 |"


@pytest.mark.parametrize("owner", ["finance", "team:", "a@b", "a b@c.de", "@x.de", "a@b.c-d"])
def test_an_owner_that_dagster_would_refuse_is_refused_in_one_line(
    project: Project, owner: str
) -> None:
    project.export["owner"] = owner
    with pytest.raises(ValidationError, match="is no owner; write an e-mail address, or team:"):
        project.settings()


@pytest.mark.parametrize("owner", ["finance@acme.example", "team:cloud costs"])
def test_the_owner_of_an_export_is_that_of_its_assets(project: Project, owner: str) -> None:
    project.export["owner"] = owner
    graph = project.definitions().resolve_asset_graph()
    assert graph.get(dg.AssetKey(["acme", "parquet"])).owners == [owner]
