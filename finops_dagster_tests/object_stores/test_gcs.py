"""Google Cloud Storage: exports in a bucket, and refusals in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

import pytest

from finops_dagster.object_stores import (
    ObjectMissing,
    StoreError,
    StoreUnavailable,
    WritableStore,
    open_store,
)
from finops_dagster.object_stores import (
    gcs as gcs_module,
)
from finops_dagster.object_stores.settings import StoreSettings, join_source, split_source
from finops_dagster.settings import load_settings
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.gcs import GcsServer
from finops_dagster_tests.servers.proxy import Answer


@pytest.fixture
def store(gcs: GcsServer, gcs_bucket: str) -> WritableStore:
    return open_store(StoreSettings(source=f"gs://{gcs_bucket}"))[0]


def test_an_address_names_a_bucket_and_a_folder() -> None:
    assert split_source("gs://acme/a/b/") == ("gs://acme", "a/b")
    assert join_source("gs://acme", "a/b") == "gs://acme/a/b"
    with pytest.raises(ValueError, match=r"region: only for a source in S3; remove it. Google's"):
        StoreSettings(source="gs://acme", region="eu-west-1")


@pytest.mark.thorough
def test_a_bill_in_a_bucket_is_found_loaded_and_then_unchanged(
    project: Project, finops: Finops, gcs: GcsServer, gcs_bucket: str
) -> None:
    bucket = gcs.bucket(gcs_bucket)
    project.put = lambda key, body: bucket.blob(f"a b/{key}").upload_from_string(body)
    project.deliver("1.25", "2")
    project.export["source"] = f"gs://{gcs_bucket}/a b"
    assert project.load().success
    assert project.totals() == (2, Decimal("3.25"))
    assert set(project.load().outcomes().values()) == {"unchanged"}
    file = project.folder / "found.toml"
    file.write_text(finops("config", "discover", f"gs://{gcs_bucket}"))
    (export,) = load_settings(file).exports
    assert export.source == f"gs://{gcs_bucket}/a b"


def test_a_missing_bucket_is_named(gcs: GcsServer) -> None:
    store, _ = open_store(StoreSettings(source="gs://nobodys"))
    with pytest.raises(StoreError, match="gs://nobodys/"):
        store.files("")


def refuse(gcs: GcsServer, status: int, message: str) -> None:
    """Refuse every request as Google does."""
    body = json.dumps({"error": {"code": status, "message": message}}).encode()

    def fault(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        return status, {"content-type": "application/json"}, body

    gcs.fault = fault


DENIED = "etl@acme.iam.gserviceaccount.com does not have {} access to the Google Cloud Storage"
REFUSALS = {
    (403, DENIED.format("storage.objects.list")): "need the role Storage Object Viewer",
    (403, DENIED.format("storage.objects.create")): "which the role Storage Object User has",
    (403, "Permission denied on Cloud KMS key."): "Cloud KMS CryptoKey Encrypter/Decrypter",
    (403, "Request is prohibited by organization's policy."): "a service perimeter keeps this",
    (403, "The billing account for the owning project is disabled"): "ask its owner",
    (400, "Bucket is a requester pays bucket but no user project provided."): "the requester pays",
    (404, "The specified bucket does not exist."): "the bucket does not exist: check the source",
}


@pytest.mark.parametrize(("refusal", "advice"), REFUSALS.items())
def test_a_refusal_has_googles_message_and_advice(
    gcs: GcsServer, store: WritableStore, refusal: tuple[int, str], advice: str
) -> None:
    refuse(gcs, *refusal)
    actions = (
        lambda: store.files("a"),
        lambda: store.head("a"),
        lambda: store.replace_if_unchanged("a", b"", etag=None),
        lambda: store.delete("a"),
    )
    for action in actions[: 3 if refusal[0] == 404 else 4]:
        with pytest.raises(StoreError) as caught:
            action()
        assert not isinstance(caught.value, ObjectMissing)
        assert f": Google refuses ({refusal[0]}: {refusal[1].rstrip('.')}); " in str(caught.value)
        assert advice in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_busy_store_is_tried_again(
    gcs: GcsServer, store: WritableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.replace_if_unchanged("a", b"one", etag=None)
    answers = iter([(503, {}, b"")])
    gcs.fault = lambda *_: next(answers, None)
    assert store.head("a").size == 3


def test_a_store_that_stays_busy_or_is_unreachable_is_a_transient_error(
    gcs: GcsServer, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_module, "_SECONDS_OF_RETRIES", 0)
    settings = StoreSettings(source=f"gs://{gcs_bucket}")
    refuse(gcs, 503, "Backend Error")
    with pytest.raises(StoreUnavailable, match=r"503: Backend Error\); Google may be busy"):
        open_store(settings)[0].head("a")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match="refused"):
        open_store(settings)[0].head("a")


def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    store, _ = open_store(StoreSettings(source="gs://acme"))
    for action in (lambda: store.files(""), store.filesystem):
        with pytest.raises(StoreError, match="no Google credentials were found: run gcloud auth"):
            action()
