"""Parquet files, whose amounts are doubles."""

from __future__ import annotations

from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import Project

COST = "lineitem_unblendedcost"


KEY = "acme-cur/20240101-20240201/{version}/acme-cur-{number}.snappy.parquet"


def parquet(project: Project, *rows: str) -> bytes:
    """Return a Parquet file of January; each row is SQL."""
    path = project.folder / "made.parquet"
    duckdb.execute(
        f"COPY (FROM (VALUES {', '.join(rows)}) AS bill(bill_billing_period_start_date, "
        f"line_item_unblended_cost)) TO '{path}' (FORMAT parquet)"
    )
    return path.read_bytes()


def deliver_parquet(project: Project, *files: bytes, version: str = "v1") -> None:
    """Deliver January as these Parquet files."""
    keys = [KEY.format(version=version, number=number + 1) for number in range(len(files))]
    for key, body in zip(keys, files, strict=True):
        project.put(key, body)
    columns = [
        {"category": "bill", "name": "billing_period_start_date", "type": "DateTime"},
        {"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"},
    ]
    changes = {"compression": "Parquet", "columns": columns, "reportKeys": keys}
    project.deliver(version=version, changes=changes)


def test_doubles_are_read_as_their_shortest_decimal_text(project: Project) -> None:
    """AWS writes costs as doubles into Parquet: 29.27 is 29.26999999999999957 there."""
    costs = ["29.27", "0.1", "8e-7", "-1234567.8912345", "0.30000000000000004"]
    rows = (f"(TIMESTAMP '2024-01-01', {cost}::DOUBLE)" for cost in costs)
    deliver_parquet(project, parquet(project, *rows))
    project.load()
    assert project.column(COST) == sorted(Decimal(cost) for cost in costs)


def test_doubles_with_more_than_18_decimals_are_rounded_and_counted(
    project: Project,
) -> None:
    rows = (
        f"(TIMESTAMP '2024-01-01', {cost}::DOUBLE)" for cost in ("1.2345678901234567e-7", "0.5")
    )
    deliver_parquet(project, parquet(project, *rows))
    run = project.materialize()
    assert project.column(COST) == [Decimal("1.23456789012E-7"), Decimal("0.5")]
    assert run.metadata("staged_files")["costs_rounded"] == 1
    assert all(run.checks().values())
    assert "cost | 1 |" in run.metadata("billing_table")["decimals_rounded"]


@pytest.mark.parametrize(
    ("kind", "cost"),
    [("DOUBLE", "'NaN'"), ("DOUBLE", "'Infinity'"), ("DOUBLE", "1e30"), ("VARCHAR", "'a lot'")],
)
@pytest.mark.quick("NaN", "a lot")
def test_a_cell_that_is_not_an_amount_fails_with_file_row_and_column(
    project: Project, kind: str, cost: str
) -> None:
    project.deliver("1", version="v0")
    project.load()
    rows = (f"(TIMESTAMP '2024-01-01', {amount}::{kind})" for amount in ("1", cost))
    deliver_parquet(project, parquet(project, *rows))
    error = project.materialize().error
    assert 'acme-cur-1.snappy.parquet, row 2, column "line_item_unblended_cost": ' in error
    assert "cannot be kept exactly as DECIMAL(38,18)" in error
    assert project.totals() == (1, 1)


@pytest.mark.parametrize("cut", [1, 100], ids=["in-the-footer", "before-it"])
def test_a_damaged_parquet_file_keeps_the_loaded_month(project: Project, cut: int) -> None:
    project.deliver("1", version="v0")
    project.load()
    deliver_parquet(project, parquet(project, "(TIMESTAMP '2024-01-01', 1.0)")[:-cut])
    error = project.materialize().error
    assert KEY.format(version="v1", number=1) in error
    assert error.endswith("; the lake keeps version v0")
    assert project.totals() == (1, 1)


def test_an_empty_parquet_file_has_no_rows(project: Project) -> None:
    """Data Exports that overwrite empty the files that a smaller version no longer needs."""
    row = "(TIMESTAMP '2024-01-01', 1.0)"
    deliver_parquet(project, b"", parquet(project, row))
    project.load()
    assert project.totals() == (1, 1)


def columns_of(project: Project, *columns: tuple[str, pa.Array]) -> bytes:
    """Return a Parquet file of two rows of January with these columns."""
    cost = pa.array([1.0, 2.0])
    names, arrays = zip(("line_item_unblended_cost", cost), *columns, strict=True)
    path = project.folder / "made.parquet"
    pq.write_table(pa.Table.from_arrays(list(arrays), names=list(names)), path)
    return path.read_bytes()


def test_a_tag_in_csv_and_in_parquet_is_one_column(
    project: Project,
) -> None:
    """AWS writes `resourceTags/user:Team` into CSV and `resource_tags_user_Team` into Parquet."""
    tag = "resourceTags/user:Team"
    row = line_item("2024-02", resourceTags__user__Team="") | {tag: "a"}
    project.deliver([row], month="2024-02", headers=[*HEADERS, tag])
    project.load("2024-02")
    tags = [
        ("resource_tags_user_Team", pa.array(["b", None])),
        ("resource_tags_user_team", pa.array([None, "c"])),
    ]
    deliver_parquet(project, columns_of(project, *tags))
    project.load()
    texts = project.query("SELECT COLUMNS('resourcetags_user_team.*') FROM aws_billing_data")
    assert sorted(texts, key=str) == [("a", None), ("b", None), (None, "c")]


def test_a_duplicate_column_is_refused_by_name(project: Project) -> None:
    tag = "resource_tags_user_team"
    for columns, name in (
        ([(tag, pa.array(["x", None])), (tag, pa.array([None, "y"]))], tag),
        ([("s", pa.array([1, 2])), ("s", pa.array([1, 2]))], "s"),
        ([("s", pa.StructArray.from_arrays([pa.array([1, 2])] * 2, ["a", "a"]))], "s.a"),
    ):
        deliver_parquet(project, columns_of(project, *columns))
        error = project.materialize().error
        assert f"acme-cur-1.snappy.parquet: the schema has the column '{name}' twice" in error


def test_a_map_with_a_duplicate_key_is_refused_by_name(project: Project) -> None:
    texts = pa.map_(pa.string(), pa.string())
    tags = pa.array([[("team", "a"), ("team", "b")], [("team", "c")]], texts)
    deliver_parquet(project, columns_of(project, ("resource_tags", tags)))
    error = project.materialize().error
    assert "acme-cur-1.snappy.parquet" in error
    assert 'column "resource_tags"' in error


def test_an_amount_with_more_digits_than_duckdb_reads_is_exact(project: Project) -> None:
    cost = Decimal("12345678901.123456789012345678")
    path = project.folder / "made.parquet"
    costs = pa.array([cost, Decimal(0)], pa.decimal256(44, 18))
    pq.write_table(pa.table({"line_item_unblended_cost": costs}), path)
    deliver_parquet(project, path.read_bytes())
    project.load()
    assert project.column(COST) == [0, cost]


def test_single_precision_costs_are_not_rounded(project: Project) -> None:
    path = project.folder / "made.parquet"
    costs = pa.array([29.27, 0.1, 1e-7], pa.float32())
    pq.write_table(pa.table({"line_item_unblended_cost": costs}), path)
    deliver_parquet(project, path.read_bytes())
    run = project.materialize()
    assert project.column(COST) == [Decimal("1e-7"), Decimal("0.1"), Decimal("29.27")]
    assert run.metadata("staged_files")["costs_rounded"] == 0


def test_empty_text_is_null(project: Project) -> None:
    columns = [
        ("bill_billing_period_start_date", pa.array(["", "2024-01-01T00:00:00Z"])),
        ("line_item_normalization_factor", pa.array(["", "0.5"])),
        ("line_item_tax_type", pa.array(["", "VAT"])),
    ]
    deliver_parquet(project, columns_of(project, *columns))
    project.load()
    empty = project.query(
        "SELECT bill_billingperiodstartdate, lineitem_normalizationfactor, lineitem_taxtype "
        "FROM aws_billing_data WHERE lineitem_unblendedcost = 1"
    )
    assert empty == [(None, None, None)]


def test_bytes_that_are_not_utf_8_are_refused_by_name(project: Project) -> None:
    columns = [("line_item_tax_type", pa.array([b"VAT", b"\xff\xfe"], pa.binary()))]
    deliver_parquet(project, columns_of(project, *columns))
    error = project.materialize().error
    assert 'acme-cur-1.snappy.parquet, column "line_item_tax_type": ' in error
    assert "is not UTF-8" in error
