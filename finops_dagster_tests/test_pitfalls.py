"""The ways in which real bills break pipelines, each loaded through the whole chain."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, items, line_item, zipped
from finops_dagster_tests.project import Outcome, Project
from finops_dagster_tests.servers.s3 import S3Server

COST = "lineitem_unblendedcost"


def load(project: Project, month: str) -> None:
    outcome = project.materialize(month)
    assert outcome.success, outcome.error


def with_tags(*tags: str) -> tuple[str, ...]:
    return (*HEADERS, *(f"resourceTags/{tag}" for tag in tags))


def test_01_sub_cent_rows_are_kept_to_the_last_digit(project: Project) -> None:
    costs = ["0.0000008", "0.000000000000000001", "-0.004", "12345678.123456789012345678"]
    deliver(project.put, "2024-01", [items("2024-01", *costs)])
    load(project, "2024-01")
    assert project.column(COST, "2024-01") == sorted(Decimal(cost) for cost in costs)
    assert project.parquet_totals("2024-01") == (4, sum(Decimal(cost) for cost in costs))


def test_02_exponents_are_numbers(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "4.0E-7", "1e2", "-2.50E-3", "10E-18")])
    load(project, "2024-01")
    expected = [Decimal("-0.0025"), Decimal("1E-17"), Decimal("4E-7"), Decimal(100)]
    assert project.column(COST, "2024-01") == expected


@pytest.mark.parametrize("cost", ["0.1234567890123456789", "1.5E-18", "1E-19"])
def test_02_more_decimals_than_the_table_has_are_refused_not_rounded(
    project: Project, cost: str
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1", cost)])
    error = project.materialize("2024-01").error
    assert "line 3" in error
    assert repr(cost) in error


def test_03_restatement_with_fewer_rows_and_parts_leaves_nothing_of_the_old(
    project: Project,
) -> None:
    deliver(
        project.put, "2024-01", [items("2024-01", "1", "2"), items("2024-01", "4")], version="v1"
    )
    load(project, "2024-01")
    deliver(project.put, "2024-01", [items("2024-01", "8")], version="v2")
    outcome = project.materialize("2024-01")
    assert project.totals("2024-01") == (1, 8)
    assert project.parquet_totals("2024-01") == (1, 8)
    assert project.column("manifest_id", "2024-01") == ["v2"]
    assert outcome.checks()["billing_table.not_fewer_rows"] is False
    assert outcome.success
    states = project.query("SELECT manifest_id, state FROM finops_state.manifests ORDER BY 1")
    assert states == [("v1", "superseded"), ("v2", "loaded")]
    assert [path.name for path in project.folder.glob("data/staging/acme/2024-01/*/")] == ["v2"]


def test_04_a_file_replaced_during_its_download_is_noticed(
    project: Project, s3: S3Server, bucket: str
) -> None:
    client = s3.client()

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=body)

    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    deliver(put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    (key,) = deliver(put, "2024-01", [items("2024-01", "2")], version="v2")

    def replace_before_get(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(key):
            s3.fault = None
            put(key, gzip.compress(csv_bytes(items("2024-01", "3"))))

    s3.fault = replace_before_get
    assert "changed while it was read" in project.materialize("2024-01").error
    assert project.totals("2024-01") == (1, 1)
    assert project.materialize("2024-01").success
    assert project.totals("2024-01") == (1, 3)


def test_05_a_missing_part_keeps_the_old_month(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    keys = deliver(
        project.put, "2024-01", [items("2024-01", "2"), items("2024-01", "3")], version="v2"
    )
    (project.source / keys[1]).unlink()
    error = project.materialize("2024-01").error
    assert keys[1] in error
    assert "though the manifest lists it" in error
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: body[: len(body) // 2], "cut short"),
        (lambda body: body[:-4], "cut short"),
        (lambda body: body[:60] + bytes([body[60] ^ 1]) + body[61:], "damaged"),
        (lambda body: body[:-8] + b"\1\2\3\4" + body[-4:], "damaged"),
        (lambda body: body + b"trailing", "damaged"),
        (lambda body: b"identity/LineItemId\nx\n", "damaged"),
    ],
    ids=["half", "no-trailer", "flipped-bit", "wrong-crc", "garbage-after", "not-gzip"],
)
def test_05_a_damaged_gzip_keeps_the_old_month(project: Project, damage, reason: str) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    body = gzip.compress(csv_bytes(items("2024-01", *map(str, range(200)))))
    deliver(project.put, "2024-01", [damage(body)], version="v2")
    error = project.materialize("2024-01").error
    assert reason in error
    assert "acme-cur-00001.csv.gz" in error
    assert project.totals("2024-01") == (1, 1)
    assert not list(project.folder.rglob("*.part"))


def test_06_a_manifest_without_types_still_gives_exact_money(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "0.0000008")], typed=False)
    load(project, "2024-01")
    types = dict(
        project.query(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE table_name = 'aws_billing_data'"
        )
    )
    assert types[COST] == "DECIMAL(38,18)"
    assert types["lineitem_usagestartdate"] == "TIMESTAMP"
    assert types["bill_payeraccountid"] == "VARCHAR"


def test_07_the_files_header_counts_where_the_manifest_lists_other_columns(
    project: Project,
) -> None:
    headers = (*HEADERS, "product/region")
    rows = [line_item("2024-01", product__region="eu-west-1")]
    deliver(
        project.put, "2024-01", [rows], headers=headers, columns=[*HEADERS[:-1], "product/vcpu"]
    )
    load(project, "2024-01")
    assert project.column("product_region", "2024-01") == ["eu-west-1"]
    assert project.column("product_vcpu", "2024-01") == [None]
    assert project.totals("2024-01") == (1, 1)


@pytest.mark.parametrize("months", [("2024-01", "2024-02"), ("2024-02", "2024-01")])
def test_08_tags_that_differ_in_case_keep_their_columns_in_every_month(
    project: Project, months: tuple[str, str]
) -> None:
    orders = {"2024-01": ("user:team", "user:Team"), "2024-02": ("user:Team", "user:team")}
    for month in months:
        row = line_item(
            month, **{"resourceTags__user:team": "low", "resourceTags__user:Team": "Up"}
        )
        deliver(project.put, month, [[row]], headers=with_tags(*orders[month]))
        load(project, month)
    for month in months:
        assert project.column("resourcetags_user_team", month) == ["low"]
        assert project.column("resourcetags_user_team_9515dbf8", month) == ["Up"]


def test_08_a_tag_keeps_its_plain_name_when_another_spelling_appears(project: Project) -> None:
    for month, tags in {"2024-01": ["user:Team"], "2024-02": ["user:team", "user:Team"]}.items():
        row = line_item(
            month, **{"resourceTags__user:team": "low", "resourceTags__user:Team": "Up"}
        )
        deliver(project.put, month, [[row]], headers=with_tags(*tags))
        load(project, month)
    assert project.column("resourcetags_user_team", "2024-01") == ["Up"]
    assert project.column("resourcetags_user_team", "2024-02") == ["Up"]


@pytest.mark.parametrize(
    "database_path", ["data/finops.duckdb", "data/{month}.duckdb"], ids=["lost", "one-a-month"]
)
def test_08_names_outlive_the_database_that_gave_them(project: Project, database_path: str) -> None:
    project.database = {"duckdb": {"database_path": database_path}}
    for month, tags in {"2024-02": ["user:team", "user:Team"], "2024-01": ["user:Team"]}.items():
        row = line_item(month, **{"resourceTags__user:Team": "Up"})
        deliver(project.put, month, [[row]], headers=with_tags(*tags))
        load(project, month)
        for path in (project.folder / "data").glob("finops.duckdb"):
            path.unlink()
    lake = "read_parquet('data/parquet/acme/*/*.parquet', hive_partitioning = false)"
    values = duckdb.sql(f"SELECT resourcetags_user_team_9515dbf8 FROM {lake}").fetchall()
    assert values == [("Up",), ("Up",)]


def test_09_a_new_column_and_a_removed_one_meet_in_one_table(project: Project) -> None:
    deliver(
        project.put,
        "2024-01",
        [[line_item("2024-01", product__old="a")]],
        headers=(*HEADERS, "product/old"),
        version="v1",
    )
    deliver(
        project.put,
        "2024-02",
        [[line_item("2024-02", product__new="b")]],
        headers=("product/new", *HEADERS),
    )
    load(project, "2024-01")
    load(project, "2024-02")
    assert project.column("product_old", "2024-01") == ["a"]
    assert project.column("product_old", "2024-02") == [None]
    assert project.column("product_new", "2024-01") == [None]
    assert project.column("product_new", "2024-02") == ["b"]
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v2")
    outcome = project.materialize("2024-01")
    assert outcome.metadata("manifest")["columns_removed"] == "product/old"
    assert outcome.metadata("manifest")["columns_added"] == ""


def test_09_a_definition_that_gained_resources_and_split_cost_allocation(
    project: Project,
) -> None:
    split = ("lineItem/ResourceId", "splitLineItem/SplitCost", "splitLineItem/ParentResourceId")
    deliver(project.put, "2024-01", [items("2024-01", "3")])
    rows = [
        line_item("2024-02", lineItem__ResourceId="i-1", lineItem__UnblendedCost="3"),
        line_item(
            "2024-02",
            lineItem__UnblendedCost="0",
            splitLineItem__SplitCost="0.0000000001",
            splitLineItem__ParentResourceId="i-1",
        ),
    ]
    deliver(project.put, "2024-02", [rows], headers=(*HEADERS, *split), typed=False)
    load(project, "2024-01")
    load(project, "2024-02")
    assert project.totals("2024-02") == (2, 3)
    assert project.column("splitlineitem_splitcost", "2024-01") == [None]
    assert project.column("splitlineitem_splitcost", "2024-02") == [Decimal("1E-10"), None]
    assert project.column("lineitem_resourceid", "2024-02") == ["i-1", None]


def load_weights(project: Project, first: tuple[str, str], then: tuple[str, str]) -> Outcome:
    """Load two months whose column pricing/weight has this type and this cell."""
    for month, (vendor_type, cell) in {"2024-01": first, "2024-02": then}.items():
        deliver(
            project.put,
            month,
            [[line_item(month, pricing__weight=cell)]],
            headers=(*HEADERS, "pricing/weight"),
            types={"pricing/weight": vendor_type},
        )
    load(project, "2024-01")
    return project.materialize("2024-02")


def test_10_a_column_of_text_takes_numbers_as_they_are_written(project: Project) -> None:
    outcome = load_weights(project, ("String", "heavy"), ("BigDecimal", "0.10"))
    assert project.column("pricing_weight", "2024-02") == ["0.10"]
    assert outcome.metadata("billing_table")["warnings"] == (
        "- pricing_weight stays VARCHAR, 2024-02 gives DECIMAL(38,18)"
    )


def test_10_numbers_that_are_called_text_stay_numbers(project: Project) -> None:
    outcome = load_weights(project, ("BigDecimal", "1.5"), ("String", "0.10"))
    assert project.column("pricing_weight", "2024-02") == [Decimal("0.1")]
    assert "pricing_weight stays DECIMAL" in outcome.metadata("billing_table")["warnings"]


def test_10_text_in_a_column_of_numbers_is_an_error_that_names_cell_and_both_months(
    project: Project,
) -> None:
    error = load_weights(project, ("BigDecimal", "1.5"), ("String", "heavy")).error
    assert "line 2, column \"pricing/weight\": 'heavy' cannot be kept exactly" in error
    assert error.endswith(
        "column pricing_weight is DECIMAL(38,18) since 2024-01, and 2024-02 gives VARCHAR"
    )
    assert project.totals("2024-02") == (0, None)
    assert project.totals("2024-01") == (1, 1)


def test_10_times_become_text_where_a_month_has_text(project: Project) -> None:
    outcome = load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("String", "soon"))
    assert project.column("pricing_weight", "2024-01") == ["2024-01-03T04:00:00Z"]
    assert project.column("pricing_weight", "2024-02") == ["soon"]
    assert outcome.metadata("billing_table")["warnings"] == (
        "- pricing_weight was TIMESTAMP, 2024-02 gives VARCHAR: it is text now"
    )


def test_10_times_that_would_become_text_stay_times_where_the_month_does_not_load(
    project: Project,
) -> None:
    load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("DateTime", ""))
    deliver(
        project.put,
        "2024-02",
        [[line_item("2024-03", pricing__weight="soon")]],
        headers=(*HEADERS, "pricing/weight"),
        version="v2",
    )
    assert "belong to another billing month" in project.materialize("2024-02").error
    ((kept,),) = project.query(
        "SELECT data_type FROM duckdb_columns() WHERE column_name = 'pricing_weight'"
    )
    assert kept == "TIMESTAMP"


def test_10_amounts_are_never_kept_as_text(project: Project) -> None:
    error = load_weights(project, ("DateTime", "2024-01-03T04:00:00Z"), ("BigDecimal", "1")).error
    assert error == (
        "column pricing_weight of table aws_billing_data is TIMESTAMP since 2024-01, but 2024-02 "
        "gives DECIMAL(38,18), and amounts are never kept as text; give the export another name "
        "and table"
    )


@pytest.mark.parametrize(
    "parts",
    [[[]], [b""], [[], b""], []],
    ids=["header-only", "zero-bytes", "both", "no-files"],
)
def test_11_an_empty_month_replaces_the_old_one_and_says_so(project: Project, parts) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    deliver(project.put, "2024-01", parts, version="v2")
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert project.totals("2024-01") == (0, None)
    assert project.parquet_totals("2024-01") == (0, None)
    assert outcome.checks()["billing_table.has_rows"] is False
    assert project.materialize("2024-01").outcomes() == dict.fromkeys(
        outcome.outcomes(), "unchanged"
    )


def test_11_an_emptied_surplus_part_counts_nothing(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1"), b"", []])
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


@pytest.mark.parametrize(
    "text", ["a, b", 'say "hi"', "two\nlines", "two\r\nlines", "Größe 東京 🎉", "NULL", "'; --"]
)
def test_12_commas_quotes_newlines_and_unicode_arrive_as_they_are(
    project: Project, text: str
) -> None:
    row = line_item("2024-01", lineItem__LineItemDescription=text)
    deliver(project.put, "2024-01", [[row, *items("2024-01", "2")]])
    load(project, "2024-01")
    assert text in project.column("lineitem_lineitemdescription", "2024-01")
    assert project.totals("2024-01") == (2, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b"\n", b"\r\n"),
        lambda body: body.rstrip(b"\n"),
        lambda body: body + b"\n",
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: b"\xef\xbb\xbf\xef\xbb\xbf" + body,
        lambda body: b"\xef\xbb\xbf" + body.replace(b"\nabc", b"\n\xef\xbb\xbfabc", 1),
    ],
    ids=["crlf", "no-last-newline", "empty-last-line", "bom", "double-bom", "bom-before-first-row"],
)
def test_12_crlf_and_byte_order_marks_are_no_data(project: Project, change) -> None:
    body = change(csv_bytes(items("2024-01", "1", "2")))
    deliver(project.put, "2024-01", [gzip.compress(body)])
    load(project, "2024-01")
    assert project.column("identity_lineitemid", "2024-01") == ["abc", "abc"]
    assert project.totals("2024-01") == (2, 3)


def test_12_bytes_that_are_not_utf_8_are_an_error_that_names_the_line(project: Project) -> None:
    body = csv_bytes(items("2024-01", "1", "2")).replace(b"AmazonEC2", b"Gr\xf6\xdfe", 1)
    deliver(project.put, "2024-01", [gzip.compress(body)])
    error = project.materialize("2024-01").error
    assert "line 2: the bytes are not UTF-8" in error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a,b,c\n", "the row has 3 columns where the header has 7"),
        (b"a,b,c,d,e,f,1,h\n", "the row has 8 columns where the header has 7"),
        (b'a,b,c,d,e,"f,1\n', "a quoted value is not closed"),
    ],
)
def test_12_a_malformed_row_is_an_error_that_names_file_and_line(
    project: Project, row: bytes, reason: str
) -> None:
    body = csv_bytes(items("2024-01", "1")) + row
    deliver(project.put, "2024-01", [items("2024-01", "1"), gzip.compress(body)])
    error = project.materialize("2024-01").error
    assert f"acme-cur-00002.csv.gz, line 3: {reason}" in error


def test_13_leading_zeros_of_account_ids_are_kept(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    load(project, "2024-01")
    assert project.column("bill_payeraccountid", "2024-01") == ["001234567890"]


@pytest.mark.parametrize("prefix", ["", "cur", "a/b c/d", "/cur"])
@pytest.mark.parametrize("report", ["acme-cur", "x.*+(1)'!"])
def test_14_prefixes_and_report_names_are_taken_literally(
    project: Project, s3: S3Server, bucket: str, prefix: str, report: str
) -> None:
    client = s3.client()
    project.export |= {
        "source": f"s3://{bucket}/{prefix}",
        "endpoint_url": s3.url,
        "export_name": report,
    }
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        "2024-01",
        [items("2024-01", "1")],
        prefix=prefix,
        report=report,
    )
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


def test_15_keys_of_a_replicated_bucket_are_resolved_beside_the_manifest(project: Project) -> None:
    deliver(
        project.put,
        "2024-01",
        [items("2024-01", "1")],
        bucket="the-original",
        manifest_prefix="original/prefix/",
    )
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


def test_16_two_exports_of_one_month_leave_each_other_alone(project: Project) -> None:
    project.more_exports = [{**project.export, "name": "beta", "export_name": "b", "table": "beta"}]
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    deliver(project.put, "2024-01", [items("2024-01", "2")], report="b")
    assert project.materialize("2024-01").success
    assert project.materialize("2024-01", export="beta").success
    assert project.totals("2024-01") == (1, 1)
    assert project.query("SELECT lineitem_unblendedcost FROM beta") == [(2,)]


def test_16_a_table_that_holds_another_export_is_refused(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")])
    load(project, "2024-01")
    project.export |= {"name": "other"}
    error = project.materialize("2024-01", export="other").error
    assert "table aws_billing_data already holds months of the export 'acme'" in error
    assert project.totals("2024-01") == (1, 1)


def test_17_other_manifests_in_the_folder_are_never_taken(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    folder = "acme-cur/20240101-20240201"
    project.put(f"{folder}/acme-cur-RedshiftManifest.json", b'{"entries": []}')
    project.put(f"{folder}/v0/acme-cur-Manifest.json", b"{}")
    project.put(f"{folder}/zz-Manifest.json", b"{}")
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


def test_25_december_ends_in_january(project: Project) -> None:
    keys = deliver(project.put, "2023-12", [items("2023-12", "1")])
    assert "/20231201-20240101/" in keys[0]
    load(project, "2023-12")
    assert project.totals("2023-12") == (1, 1)


def test_26_rows_used_outside_the_month_belong_to_the_month_they_are_billed_in(
    project: Project,
) -> None:
    refund = line_item("2024-01", lineItem__UsageStartDate="2023-11-30T23:00:00Z")
    deliver(project.put, "2024-01", [[refund]])
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


def test_26_rows_billed_in_another_month_fail_the_check_and_keep_the_old_month(
    project: Project,
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    deliver(project.put, "2024-01", [items("2024-02", "2")], version="v2")
    outcome = project.materialize("2024-01")
    assert not outcome.success
    assert outcome.checks() == {
        "manifest.manifest_is_fresh": True,
        "billing_table.rows_belong_to_month": False,
    }
    assert "1 rows of table aws_billing_data say that they belong to another" in outcome.error
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)


def test_28_thousands_of_old_versions_beside_the_manifest_are_never_listed(
    project: Project, s3: S3Server, bucket: str
) -> None:
    client = s3.client()
    folder = "cur/acme-cur/20240101-20240201"
    for number in range(1100):
        client.put_object(
            Bucket=bucket, Key=f"{folder}/old{number:04}/acme-cur-1.csv.gz", Body=b"x"
        )
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        "2024-01",
        [items("2024-01", "1")],
        prefix="cur",
    )
    project.export |= {"source": f"s3://{bucket}/cur", "endpoint_url": s3.url}
    s3.requests.clear()
    load(project, "2024-01")
    file = f"/{bucket}/{folder}/20240301T000000Z/acme-cur-00001.csv.gz"
    assert s3.requests == [
        ("GET", f"/{bucket}/{folder}/acme-cur-Manifest.json"),
        ("HEAD", file),
        ("GET", file),
    ]


def test_29_a_load_that_fails_in_its_middle_leaves_the_old_month_readable(project: Project) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    good = [line_item("2024-01", lineItem__UsageStartDate="2024-01-01T00:00:00Z")] * 300_000
    bad = line_item("2024-01", lineItem__UsageStartDate="yesterday")
    deliver(project.put, "2024-01", [good, [*good[:5], bad]], version="v2")
    error = project.materialize("2024-01").error
    assert "acme-cur-00002.csv.gz, line 7, column \"lineItem/UsageStartDate\": 'yesterday'" in error
    assert project.totals("2024-01") == (1, 1)
    assert project.parquet_totals("2024-01") == (1, 1)
    assert project.query("SELECT manifest_id, state FROM finops_state.manifests") == [
        ("v1", "loaded")
    ]


def test_30_a_rerun_of_the_same_version_does_nothing(
    project: Project, s3: S3Server, bucket: str
) -> None:
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        "2024-01",
        [items("2024-01", "1")],
    )
    load(project, "2024-01")
    written = project.parquet("2024-01").stat().st_mtime_ns
    s3.requests.clear()
    outcome = project.materialize("2024-01")
    assert outcome.outcomes() == {
        "manifest": "unchanged",
        "staged_files": "unchanged",
        "billing_table": "unchanged",
        "parquet": "unchanged",
    }
    assert [method for method, _ in s3.requests] == ["GET"]
    assert project.parquet("2024-01").stat().st_mtime_ns == written
    assert project.query("SELECT count(*) FROM finops_state.manifests") == [(1,)]


def test_18_a_zip_is_read_like_any_other_file(project: Project) -> None:
    deliver(
        project.put, "2024-01", [zipped(csv_bytes(items("2024-01", "0.0000008")))], suffix="zip"
    )
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, Decimal("0.0000008"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: body[:-30], "the ZIP is damaged"),
        (lambda body: body[:70] + bytes([body[70] ^ 1]) + body[71:], "damaged"),
        (lambda body: csv_bytes(items("2024-01", "2")), "the ZIP is damaged"),
    ],
    ids=["cut-short", "flipped-bit", "no-zip"],
)
def test_18_a_damaged_zip_keeps_the_old_month(project: Project, damage, reason: str) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v1")
    load(project, "2024-01")
    body = zipped(csv_bytes(items("2024-01", *map(str, range(200)))))
    deliver(project.put, "2024-01", [damage(body)], version="v2", suffix="zip")
    error = project.materialize("2024-01").error
    assert reason in error
    assert "acme-cur-00001.csv.zip" in error
    assert project.totals("2024-01") == (1, 1)
    assert [path.name for path in project.folder.rglob("v2/acme-cur-*.zip*")] == [
        "acme-cur-00001.csv.zip"
    ]


PARQUET = """
    COPY (SELECT * FROM (VALUES {rows}) AS bill(bill_billing_period_start_date,
        line_item_unblended_cost)) TO '{path}' (FORMAT parquet)
"""


def deliver_parquet(project: Project, *rows: str, version: str = "v1") -> Path:
    """Deliver January in Parquet, a row as SQL; the manifest is the CSV one's."""
    path = project.source / "acme-cur/20240101-20240201" / version / "acme-cur-1.snappy.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(PARQUET.format(rows=", ".join(rows), path=path))
    project.put(str(path), path.read_bytes())
    columns = [
        {"category": "bill", "name": "billing_period_start_date", "type": "DateTime"},
        {"category": "line_item", "name": "unblended_cost", "type": "BigDecimal"},
    ]
    changes = {
        "compression": "Parquet",
        "columns": columns,
        "reportKeys": [str(path.relative_to(project.source))],
    }
    deliver(project.put, "2024-01", [], version=version, changes=changes)
    return path


def test_19_doubles_count_as_the_decimals_they_were_made_of(project: Project) -> None:
    costs = ["29.27", "0.1", "8e-7", "-1234567.8912345", "0.30000000000000004"]
    deliver_parquet(project, *(f"(TIMESTAMP '2024-01-01', {cost}::DOUBLE)" for cost in costs))
    load(project, "2024-01")
    assert project.column(COST, "2024-01") == sorted(Decimal(cost) for cost in costs)


def test_19_doubles_with_more_decimals_than_the_table_are_rounded_and_counted(
    project: Project,
) -> None:
    deliver_parquet(
        project,
        "(TIMESTAMP '2024-01-01', 1.2345678901234567e-7)",
        "(TIMESTAMP '2024-01-01', 0.5::DOUBLE)",
    )
    outcome = project.materialize("2024-01")
    assert project.column(COST, "2024-01") == [Decimal("1.23456789012E-7"), Decimal("0.5")]
    assert outcome.metadata("staged_files")["costs_rounded"] == 1


@pytest.mark.parametrize(
    ("kind", "cost"),
    [("DOUBLE", "'NaN'"), ("DOUBLE", "'Infinity'"), ("DOUBLE", "1e30"), ("VARCHAR", "'a lot'")],
)
def test_19_a_cell_that_is_no_amount_is_an_error_that_names_file_row_and_column(
    project: Project, kind: str, cost: str
) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v0")
    load(project, "2024-01")
    path = deliver_parquet(
        project,
        f"('2024-01-01'::TIMESTAMP, 1::{kind})",
        f"('2024-01-01'::TIMESTAMP, {cost}::{kind})",
    )
    error = project.materialize("2024-01").error
    assert f'{path.name}, row 2, column "line_item_unblended_cost": ' in error
    assert "cannot be kept exactly as DECIMAL(38,18)" in error
    assert project.totals("2024-01") == (1, 1)


@pytest.mark.parametrize("cut", [1, 100], ids=["in-the-footer", "before-it"])
def test_19_a_damaged_parquet_file_keeps_the_old_month(project: Project, cut: int) -> None:
    deliver(project.put, "2024-01", [items("2024-01", "1")], version="v0")
    load(project, "2024-01")
    path = deliver_parquet(project, "(TIMESTAMP '2024-01-01', 1.0)")
    path.write_bytes(path.read_bytes()[:-cut])
    error = project.materialize("2024-01").error
    assert str(path) in error
    assert "the month was left as it was" in error
    assert project.totals("2024-01") == (1, 1)


def test_19_an_empty_parquet_file_is_no_data(project: Project) -> None:
    path = deliver_parquet(project, "(TIMESTAMP '2024-01-01', 1.0)")
    emptied = path.with_name("acme-cur-2.snappy.parquet")
    emptied.write_bytes(b"")
    keys = [str(p.relative_to(project.source)) for p in (path, emptied)]
    deliver(project.put, "2024-01", [], version="v1", changes={"reportKeys": keys})
    load(project, "2024-01")
    assert project.totals("2024-01") == (1, 1)


MAPS = ("bill_billing_period_start_date", "line_item_unblended_cost", "resource_tags", "discount")


def deliver_maps(project: Project, *cells: tuple[str, str]) -> None:
    """Deliver a CUR 2.0 of January in CSV whose rows have these tags and discounts."""
    project.export["format"] = "cur2"
    rows = [dict(zip(MAPS, ("2024-01-01T00:00:00.000Z", "1", *row), strict=True)) for row in cells]
    month = "BILLING_PERIOD=2024-01"
    file = f"acme-cur/data/{month}/2024-e1/acme-cur-00001.csv.gz"
    project.put(file, gzip.compress(csv_bytes(rows, MAPS)))
    manifest = {
        "executionId": "e1",
        "columns": [{"name": name} for name in MAPS],
        "dataFiles": [f"s3://b/{file}"],
    }
    project.put(f"acme-cur/metadata/{month}/Manifest.json", json.dumps(manifest).encode())


def test_20_maps_are_json_text_in_csv(project: Project) -> None:
    tags = '{"user_team": "Größe, \\"A\\"", "aws_created_by": ""}'
    exact = '{"edp": -0.1234567890123456789e1, "b": 123456789012345678.123456789012345678}'
    deliver_maps(project, (tags, exact), ("{}", "{}"), ("", ""))
    load(project, "2024-01")
    rows = project.query("SELECT resource_tags, discount FROM aws_billing_data ORDER BY 1")
    amounts = {
        "edp": Decimal("-1.234567890123456789"),
        "b": Decimal("123456789012345678.123456789012345678"),
    }
    assert rows == [
        ({}, {}),
        ({"user_team": 'Größe, "A"', "aws_created_by": ""}, amounts),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        (("not json", ""), "resource_tags"),
        (("[1]", ""), "resource_tags"),
        (('{"a": 1', ""), "resource_tags"),
        (("", '{"edp": "much"}'), "discount"),
        (("", '{"edp": 0.1234567890123456789}'), "discount"),
    ],
)
def test_20_a_map_that_is_none_is_an_error_that_names_the_cell(
    project: Project, cells: tuple[str, str], column: str
) -> None:
    deliver_maps(project, ("{}", "{}"), cells)
    error = project.materialize("2024-01").error
    assert f'line 3, column "{column}": ' in error
    assert "cannot be kept exactly as MAP(VARCHAR, " in error


@pytest.mark.parametrize("period", ["BILLING_PERIOD", "billing_period"])
@pytest.mark.parametrize("manifest", ["acme-cur-Manifest.json", "Manifest.json"])
def test_21_the_month_of_a_data_export_is_found_in_either_case(
    project: Project, period: str, manifest: str
) -> None:
    deliver_maps(project, ("{}", "{}"))
    metadata = project.source / "acme-cur/metadata"
    (metadata / "BILLING_PERIOD=2024-01").rename(metadata / f"{period}=2024-01")
    (metadata / f"{period}=2024-01/Manifest.json").rename(metadata / f"{period}=2024-01" / manifest)
    (metadata / f"{period}=2024-01/acme-cur-Metadata.json").write_text("{}")
    load(project, "2024-01")


def test_27_currencies_are_told_apart_and_more_than_one_is_worth_a_look(project: Project) -> None:
    headers = (*HEADERS, "lineItem/CurrencyCode")
    rows = [
        line_item("2024-01", lineItem__CurrencyCode=currency, lineItem__UnblendedCost=cost)
        for currency, cost in [("CNY", "7"), ("USD", "1"), ("CNY", "0.5")]
    ]
    deliver(project.put, "2024-01", [rows[::2]], headers=headers, version="v1")
    outcome = project.materialize("2024-01")
    assert outcome.metadata("billing_table")["currency"] == "CNY"
    assert outcome.checks()["billing_table.one_currency"] is True
    deliver(project.put, "2024-01", [rows], headers=headers, version="v2")
    outcome = project.materialize("2024-01")
    assert outcome.metadata("billing_table")["currency"] == "CNY, USD"
    assert outcome.checks()["billing_table.one_currency"] is False
    assert outcome.success
