"""The ways in which real bills break pipelines, each loaded through the whole chain."""

from __future__ import annotations

import gzip
from decimal import Decimal

import duckdb
import pytest

from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, items, line_item
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
        "gives DECIMAL(38,18), and amounts are never kept as text; give the export another table"
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
