"""Columns that are new, removed, named alike, or of another type than before."""

from __future__ import annotations

from decimal import Decimal

import duckdb
import pytest

from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import MonthRun, Project

COST = "lineitem_unblendedcost"


def with_tags(*tags: str) -> tuple[str, ...]:
    return (*HEADERS, *(f"resourceTags/{tag}" for tag in tags))


def test_costs_are_exact_where_the_manifest_has_no_types(project: Project) -> None:
    """Manifests of 2016 and 2017 list no types, and neither do those of nise."""
    project.deliver("0.0000008", with_types=False)
    project.load()
    types = dict(
        project.query(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE table_name = 'aws_billing_data'"
        )
    )
    assert types[COST] == "DECIMAL(38,18)"
    assert types["lineitem_usagestartdate"] == "TIMESTAMP"
    assert types["bill_payeraccountid"] == "VARCHAR"


def test_columns_come_from_the_files_header_where_the_manifest_lists_others(
    project: Project,
) -> None:
    """The manifests of nise list other columns than its files have."""
    headers = (*HEADERS, "product/region")
    rows = [line_item("2024-01", product__region="eu-west-1")]
    project.deliver(rows, headers=headers, columns=[*HEADERS[:-1], "product/vcpu"])
    project.load()
    assert project.column("product_region") == ["eu-west-1"]
    assert project.column("product_vcpu") == [None]
    assert project.totals() == (1, 1)


@pytest.mark.parametrize("months", [("2024-01", "2024-02"), ("2024-02", "2024-01")])
def test_tags_that_differ_in_case_keep_their_columns_in_every_month(
    project: Project, months: tuple[str, str]
) -> None:
    """Tag keys are case-sensitive at AWS; column names are not in DuckDB and BigQuery."""
    orders = {"2024-01": ("user:team", "user:Team"), "2024-02": ("user:Team", "user:team")}
    for month in months:
        row = line_item(
            month, **{"resourceTags__user:team": "low", "resourceTags__user:Team": "Up"}
        )
        project.deliver([row], month=month, headers=with_tags(*orders[month]))
        project.load(month)
    for month in months:
        assert project.column("resourcetags_user_team", month) == ["low"]
        assert project.column("resourcetags_user_team_9515dbf8", month) == ["Up"]


def test_a_tag_keeps_its_plain_name_when_another_spelling_appears(project: Project) -> None:
    for month, tags in {"2024-01": ["user:Team"], "2024-02": ["user:team", "user:Team"]}.items():
        row = line_item(
            month, **{"resourceTags__user:team": "low", "resourceTags__user:Team": "Up"}
        )
        project.deliver([row], month=month, headers=with_tags(*tags))
        project.load(month)
    assert project.column("resourcetags_user_team") == ["Up"]
    assert project.column("resourcetags_user_team", "2024-02") == ["Up"]


@pytest.mark.parametrize(
    "database_path", ["data/finops.duckdb", "data/{month}.duckdb"], ids=["lost", "one-a-month"]
)
def test_column_names_survive_the_loss_of_the_database(
    project: Project, database_path: str
) -> None:
    """The lake has the names too; without them, a month could swap the columns of two tags."""
    project.database = {"duckdb": {"database_path": database_path}}
    for month, tags in {"2024-02": ["user:team", "user:Team"], "2024-01": ["user:Team"]}.items():
        row = line_item(month, **{"resourceTags__user:Team": "Up"})
        project.deliver([row], month=month, headers=with_tags(*tags))
        project.load(month)
        for path in (project.folder / "data").glob("finops.duckdb"):
            path.unlink()
    lake = "read_parquet('data/parquet/acme/*/*.parquet', hive_partitioning = false)"
    values = duckdb.sql(f"SELECT resourcetags_user_team_9515dbf8 FROM {lake}").fetchall()
    assert values == [("Up",), ("Up",)]


def test_months_with_new_and_with_removed_columns_share_one_table(project: Project) -> None:
    """CUR v1 has the columns that a month needs: those of tags and services come and go."""
    project.deliver([line_item("2024-01", product__old="a")], headers=(*HEADERS, "product/old"))
    project.deliver(
        [line_item("2024-02", product__new="b")], month="2024-02", headers=("product/new", *HEADERS)
    )
    project.load()
    project.load("2024-02")
    assert project.column("product_old") == ["a"]
    assert project.column("product_old", "2024-02") == [None]
    assert project.column("product_new") == [None]
    assert project.column("product_new", "2024-02") == ["b"]
    project.deliver("1", version="v2")
    run = project.materialize()
    assert run.metadata("manifest")["columns_removed"] == "product/old"
    assert run.metadata("manifest")["columns_added"] == ""


def test_a_report_that_gains_resource_ids_and_split_costs_is_loaded(
    project: Project,
) -> None:
    """Both are options of a report, which can be set later and add rows and columns."""
    split = ("lineItem/ResourceId", "splitLineItem/SplitCost", "splitLineItem/ParentResourceId")
    project.deliver("3")
    rows = [
        line_item("2024-02", lineItem__ResourceId="i-1", lineItem__UnblendedCost="3"),
        line_item(
            "2024-02",
            lineItem__UnblendedCost="0",
            splitLineItem__SplitCost="0.0000000001",
            splitLineItem__ParentResourceId="i-1",
        ),
    ]
    project.deliver(rows, month="2024-02", headers=(*HEADERS, *split), with_types=False)
    project.load()
    project.load("2024-02")
    assert project.totals("2024-02") == (2, 3)
    assert project.column("splitlineitem_splitcost") == [None]
    assert project.column("splitlineitem_splitcost", "2024-02") == [Decimal("1E-10"), None]
    assert project.column("lineitem_resourceid", "2024-02") == ["i-1", None]


def load_weights(project: Project, first: tuple[str, str], second: tuple[str, str]) -> MonthRun:
    """Load two months whose column pricing/weight has the given type and cell."""
    for month, (vendor_type, cell) in {"2024-01": first, "2024-02": second}.items():
        project.deliver(
            [line_item(month, pricing__weight=cell)],
            month=month,
            headers=(*HEADERS, "pricing/weight"),
            types={"pricing/weight": vendor_type},
        )
    project.load()
    return project.materialize("2024-02")


def test_a_text_column_keeps_numbers_as_they_are_written(project: Project) -> None:
    run = load_weights(project, ("String", "heavy"), ("BigDecimal", "0.10"))
    assert project.column("pricing_weight", "2024-02") == ["0.10"]
    assert run.metadata("billing_table")["warnings"] == (
        "- pricing_weight stays VARCHAR, although 2024-02 has DECIMAL(38,18); nothing needs to "
        "be done"
    )


def test_a_number_column_stays_numeric_where_the_manifest_calls_it_text(project: Project) -> None:
    run = load_weights(project, ("BigDecimal", "1.5"), ("String", "0.10"))
    assert project.column("pricing_weight", "2024-02") == [Decimal("0.1")]
    assert "pricing_weight stays DECIMAL" in run.metadata("billing_table")["warnings"]


def test_text_in_a_number_column_fails_and_names_the_cell_and_both_months(
    project: Project,
) -> None:
    error = load_weights(project, ("BigDecimal", "1.5"), ("String", "heavy")).error
    assert "line 2, column \"pricing/weight\": 'heavy' cannot be kept exactly" in error
    assert error.endswith(
        "column pricing_weight has the type DECIMAL(38,18) since 2024-01, but 2024-02 has VARCHAR; "
        "to load the month, give the export another name and table"
    )
    assert project.totals("2024-02") == (0, None)
    assert project.totals() == (1, 1)


def test_a_time_column_becomes_text_where_a_month_has_text(project: Project) -> None:
    run = load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("String", "soon"))
    assert project.column("pricing_weight") == ["2024-01-03T04:00:00Z"]
    assert project.column("pricing_weight", "2024-02") == ["soon"]
    assert run.metadata("billing_table")["warnings"] == (
        "- pricing_weight changed from TIMESTAMP to text, because 2024-02 has VARCHAR; cast it "
        "in queries"
    )


def test_a_time_column_keeps_its_type_where_the_month_with_text_fails(
    project: Project,
) -> None:
    load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("DateTime", ""))
    project.deliver(
        [line_item("2024-03", pricing__weight="soon")],
        month="2024-02",
        headers=(*HEADERS, "pricing/weight"),
        version="v2",
    )
    assert "of another billing month" in project.materialize("2024-02").error
    ((data_type,),) = project.query(
        "SELECT data_type FROM duckdb_columns() WHERE column_name = 'pricing_weight'"
    )
    assert data_type == "TIMESTAMP"


def test_amounts_in_a_time_column_fail_rather_than_become_text(project: Project) -> None:
    error = load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("BigDecimal", "1")).error
    assert error == (
        "column pricing_weight of table aws_billing_data has the type TIMESTAMP since 2024-01, but "
        "2024-02 has amounts there (DECIMAL(38,18)), which are never stored as text; to load the "
        "month, give the export another name and table"
    )
