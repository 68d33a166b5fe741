"""S3 under faults: what can be retried is, and what cannot is said in one line."""

from __future__ import annotations

import io
from urllib.parse import parse_qs

import pytest

from finops_dagster.assets import stage
from finops_dagster.resources.object_stores import ObjectChanged, StoreError, StoreUnavailable
from finops_dagster.resources.object_stores.s3 import S3Store
from finops_dagster_tests.cur import Put, deliver, items
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def put(project: Project, s3: S3Server, bucket: str) -> Put:
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


@pytest.fixture
def store(project: Project, put: Put) -> S3Store:
    store, _ = project.the_export().store
    assert isinstance(store, S3Store)
    return store


def answer_once(s3: S3Server, method: str, status: str, body: bytes, headers=()) -> None:
    """Let the next request of the method be answered so."""

    def fault(environ, start_response):
        if environ["REQUEST_METHOD"] != method:
            return None
        s3.fault = None
        start_response(status, [("Content-Length", str(len(body))), *headers])
        return [body]

    s3.fault = fault


SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


def test_a_busy_store_is_asked_again(project: Project, put: Put, s3: S3Server) -> None:
    deliver(put, "2024-01", [items("2024-01", "1")])
    answer_once(s3, "GET", "503 Slow Down", SLOW_DOWN)
    assert project.materialize("2024-01").success


def test_a_body_cut_on_the_way_is_fetched_again(project: Project, put: Put, s3: S3Server) -> None:
    (key,) = deliver(put, "2024-01", [items("2024-01", *map(str, range(100)))])

    body = s3.client().get_object(Bucket=project.export["source"][5:], Key=key)["Body"].read()

    def cut(environ, start_response):
        if environ["REQUEST_METHOD"] != "GET" or not environ["PATH_INFO"].endswith(key):
            return None
        s3.fault = None
        headers = {"Content-Length": str(len(body)), "ETag": '"x"'}
        headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
        start_response("200 OK", list(headers.items()))
        return [body[:-20]]

    s3.requests.clear()
    s3.fault = cut
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert sum(method == "GET" and path.endswith(key) for method, path in s3.requests) == 2
    assert project.totals("2024-01") == (100, sum(range(100)))


def test_a_network_fault_is_retried_by_the_run(
    project: Project, put: Put, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_RETRIES", 0)
    deliver(put, "2024-01", [items("2024-01", "1")])
    cut = [("ETag", '"x"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")]

    def fault(environ, start_response):
        s3.fault = None
        start_response("200 OK", [("Content-Length", "1000"), *cut])
        return [b"{"]

    s3.fault = fault
    outcome = project.materialize("2024-01")
    assert outcome.success, outcome.error
    assert outcome.retries() == 1


def test_what_no_retry_cures_is_not_retried(project: Project, put: Put) -> None:
    outcome = project.materialize("2024-01")
    assert "no manifest of 2024-01" in outcome.error
    assert outcome.retries() == 0


def test_an_object_is_read_in_the_version_that_was_looked_at(store: S3Store, put: Put) -> None:
    put("key", b"one")
    version = store.head("key")
    put("key", b"two")
    with pytest.raises(ObjectChanged, match=r"key changed while it was read"):
        list(store.chunks(version))


def test_a_bucket_that_is_not_there_is_named(project: Project, put: Put) -> None:
    project.export["source"] = "s3://acme-billing-of-nobody/cur"
    error = project.materialize("2024-01").error
    assert error.startswith("s3://acme-billing-of-nobody/cur/acme-cur/20240101-20240201/")
    assert error.endswith("there is no such bucket")


def test_a_refusal_says_which_permission_it_takes(store: S3Store, s3: S3Server) -> None:
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    answer_once(s3, "GET", "403 Forbidden", denied)
    with pytest.raises(StoreError, match=r"denies access \(AccessDenied\); it takes s3:GetObject"):
        store.read("key")


def test_missing_credentials_are_told_in_one_line(
    project: Project, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(project.folder))
    error = project.materialize("2024-01").error
    assert "no AWS credentials were found" in error


def test_an_unreachable_store_may_be_asked_again(
    project: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.export |= {"source": "s3://bucket", "endpoint_url": "http://127.0.0.1:1"}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store, _ = project.the_export().store
    with pytest.raises(StoreUnavailable, match="s3://bucket/key: "):
        store.head("key")


def test_a_role_is_assumed_with_the_credentials_that_are_there(
    project: Project, put: Put, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    project.export |= {
        "role_arn": "arn:aws:iam::123456789012:role/finops-read",
        "external_id": "acme-finops",
        "region": "us-east-1",
    }
    deliver(put, "2024-01", [items("2024-01", "1")])
    asked = []

    def listen(environ, start_response):
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            asked.append(parse_qs(body.decode()))
            environ["wsgi.input"] = io.BytesIO(body)

    s3.fault = listen
    project.load("2024-01")
    (assumed,) = asked
    assert assumed["Action"] == ["AssumeRole"]
    assert assumed["RoleArn"] == ["arn:aws:iam::123456789012:role/finops-read"]
    assert assumed["ExternalId"] == ["acme-finops"]
