"""Fuzzed manifests: read, or refused as ManifestInvalid in one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.source import AwsFormat, aws_formats
from finops_dagster_tests.hostile.reading import one_line

MONTH = BillingMonth(2024, 1)
MANIFEST_FOLDERS = {
    "cur1": "cur/acme/20240101-20240201",
    "cur2": "cur/acme/metadata/BILLING_PERIOD=2024-01",
    "focus": "cur/acme/metadata/billing_period=2024-01",
}
MANIFESTS: dict[str, dict[str, Any]] = {
    "cur1": {
        "assemblyId": "20240203T000000Z",
        "account": "012345678901",
        "columns": [{"category": "lineItem", "name": "UnblendedCost", "type": "BigDecimal"}],
        "billingPeriod": {"start": "20240101T000000.000Z", "end": "20240201T000000.000Z"},
        "reportKeys": ["cur/acme/20240101-20240201/x/acme-1.csv.gz"],
    },
    "cur2": {
        "executionId": "2d3b-11",
        "exportArn": "arn:aws:bcm-data-exports:us-east-1:123456789012:export/acme",
        "columns": [{"name": "line_item_unblended_cost", "type": "double"}],
        "billingPeriod": "2024-01",
        "dataFiles": [{"s3Uri": "s3://b/acme/data/BILLING_PERIOD=2024-01/1.csv.gz", "size": 9}],
    },
    "focus": {
        "columns": [{"name": "BilledCost", "type": "decimal(38,18)"}],
        "dataFiles": ["acme/data/billing_period=2024-01/1.snappy.parquet"],
    },
}
FORMATS = st.sampled_from(list(aws_formats("athena").values()))
_MANIFEST_ADAPTER = TypeAdapter(Manifest)

PIECES = ["", "..", "../x", "/etc/passwd", "\0", "a\nb", "\ud800", "s3://", "20240101-20240201/"]
texts = st.text(max_size=20) | st.sampled_from([*PIECES, "x" * 999])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document, that of the document itself first."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    children = value.items() if isinstance(value, dict) else ()
    return [
        path,
        *(inner_path for key, inner in children for inner_path in paths_in(inner, (*path, key))),
    ]


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of the document with another value at a path."""
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = with_value(document[path[0]], path[1:], value)
    return copy


@st.composite
def fuzzed_manifests(draw: st.DrawFn, name: str) -> Any:
    """Draw a manifest with some values replaced."""
    document: Any = MANIFESTS[name]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_in(document)))
        document = with_value(document, path, draw(anything))
    return document


def assert_read_or_refused(bill_format: AwsFormat, body: bytes) -> None:
    folder = MANIFEST_FOLDERS[bill_format.name]
    key = f"{folder}/acme-Manifest.json"
    source = ManifestFile(
        key, f"s3://bucket/{key}", "etag", datetime(2024, 2, 1, tzinfo=UTC), len(body)
    )
    try:
        manifest = bill_format.parse_manifest(body, source, MONTH)
    except ManifestInvalid as error:
        assert one_line(error).startswith(source.location)
        return
    assert _MANIFEST_ADAPTER.validate_json(_MANIFEST_ADAPTER.dump_json(manifest)) == manifest
    assert all(file.key.startswith("cur/acme/") for file in manifest.files)
    assert not any(part in ("", ".", "..") for f in manifest.files for part in f.key.split("/"))
    for column in manifest.columns:
        bill_format.column(column.header), bill_format.sql_type(column.header, column.type)


def test_the_manifests_before_fuzzing_can_be_read() -> None:
    for bill_format in aws_formats("flat").values():
        body = json.dumps(MANIFESTS[bill_format.name]).encode()
        source = ManifestFile(
            f"{MANIFEST_FOLDERS[bill_format.name]}/x", "x", "e", datetime(2024, 2, 1, tzinfo=UTC), 1
        )
        assert len(bill_format.parse_manifest(body, source, MONTH).files) == 1


@given(bill_format=FORMATS, data=st.data())
def test_a_fuzzed_manifest_is_read_or_refused(bill_format: AwsFormat, data: st.DataObject) -> None:
    assert_read_or_refused(
        bill_format, json.dumps(data.draw(fuzzed_manifests(bill_format.name))).encode()
    )


@given(bill_format=FORMATS, document=anything)
def test_any_json_is_read_or_refused(bill_format: AwsFormat, document: Any) -> None:
    assert_read_or_refused(bill_format, json.dumps(document).encode())


@given(bill_format=FORMATS, body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(bill_format: AwsFormat, body: bytes) -> None:
    assert_read_or_refused(bill_format, body)
