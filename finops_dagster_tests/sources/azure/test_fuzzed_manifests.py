"""Fuzzed manifests of Azure: read, or refused as ManifestInvalid in one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.manifest import Manifest
from finops_dagster.object_stores import ObjectInfo
from finops_dagster.sources.azure.layout import VendorRun, runs_below
from finops_dagster.sources.azure.manifest import ParsedRun, parse_run
from finops_dagster_tests.azure import MANIFESTS, Run
from finops_dagster_tests.hostile.reading import one_line
from finops_dagster_tests.hostile.test_fuzzed_manifests import anything, paths_in, with_value

FOLDER = "exports/contoso-daily/20240101-20240131"
_ADAPTER = TypeAdapter(Manifest)


def found_run(name: str = "manifest.json") -> VendorRun:
    key = f"{FOLDER}/202402010348/{Run().run_id}/{name}"
    written = datetime(2024, 2, 1, 4, tzinfo=UTC)
    (run,) = runs_below(FOLDER, [ObjectInfo(key, f"s3://b/{key}", 9, "etag", written)])
    return run


def document(name: str) -> Any:
    blobs = [{"blobName": f"{FOLDER}/x/part.csv", "byteCount": 9, "dataRowCount": 1}]
    return MANIFESTS[name](Run(), blobs)


@st.composite
def fuzzed_documents(draw: st.DrawFn) -> Any:
    """Draw a manifest with some values replaced."""
    fuzzed = document(draw(st.sampled_from(list(MANIFESTS))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_in(fuzzed)))
        fuzzed = with_value(fuzzed, path, draw(anything))
    return fuzzed


def read(body: bytes) -> ParsedRun | ManifestInvalid:
    """Return the run, whose manifest can be stored and lists only files beside it."""
    run = found_run()
    try:
        found = parse_run(body, run, "focus", {"focuscost"})
    except ManifestInvalid as error:
        assert one_line(error).startswith(run.file.location)
        return error
    if found.manifest is not None:
        assert _ADAPTER.validate_json(_ADAPTER.dump_json(found.manifest)) == found.manifest
        folder = run.file.key.rpartition("/")[0]
        for file in found.manifest.files:
            above, _, name = file.key.rpartition("/")
            assert above == folder
            assert name not in ("", ".", "..")
    return found


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_before_fuzzing_can_be_read(name: str) -> None:
    found = read(json.dumps(document(name)).encode())
    assert isinstance(found, ParsedRun)
    assert found.manifest
    assert len(found.manifest.files) == 1


@given(fuzzed=fuzzed_documents())
def test_a_fuzzed_manifest_is_read_or_refused(fuzzed: Any) -> None:
    read(json.dumps(fuzzed).encode())


@given(any_document=anything)
def test_any_json_is_read_or_refused(any_document: Any) -> None:
    read(json.dumps(any_document).encode())


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    read(body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blobs": None}, "has no list of blobs, which the manifest of an Azure export has; "),
        ({"blobs": [{"blobName": "a/x.csv"}, {"blobName": "b/x.csv"}], "blobCount": 2}, "twice"),
        ({"blobs": [{"blobName": "a/"}]}, "lists 'a/', which is a folder"),
        ({"blobs": [{"blobName": "../x\n.csv"}]}, "which has a control character, or . or .."),
        ({"blobs": [{}]}, "lists None, which is not the key of a file"),
        ({"blobCount": 2}, "lists 1 blobs, but its blobCount is 2"),
        ({"runInfo": {"submittedTime": "yesterday"}}, "submittedTime is 'yesterday', not a time"),
        ({"runInfo": {"startDate": "1/1/2024"}}, "startDate is '1/1/2024', not a date"),
        ({"runInfo": {"endDate": "2023-12-31"}}, "ends on 2023-12-31, before it begins on 2024"),
        ({"runInfo": {"runId": "\u202e"}}, "is not a usable version id"),
        ({"exportConfig": {"type": 7}}, "exportConfig.type is 7, expected a text"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(changes: dict[str, Any], message: str) -> None:
    error = read(json.dumps(document("2024-04-01") | changes).encode())
    assert isinstance(error, ManifestInvalid)
    assert message in str(error)
    assert "; wait for the vendor's next manifest" in str(error)
