"""Which run is a month's version, and what is asked of the store to find it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import FileInvalid, ManifestInvalid, ManifestMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectMissing, ObjectStores
from finops_dagster.object_stores.local import LocalStore
from finops_dagster.sources.azure.settings import AzureExport
from finops_dagster.sources.azure.source import AzureSource
from finops_dagster.sources.base import ManifestOrError
from finops_dagster_tests.azure import ENROLMENT, PROFILE, Run, costs, deliver
from finops_dagster_tests.project import Project, requested_months
from finops_dagster_tests.servers.azurite import AzureServer
from finops_dagster_tests.servers.s3 import S3Server

JANUARY, FEBRUARY = BillingMonth(2024, 1), BillingMonth(2024, 2)


def newest(project: Project, month: BillingMonth = JANUARY) -> ManifestOrError:
    export = AzureExport.model_validate(project.export)
    return AzureSource(export, ObjectStores()).newest_manifests([month])[month]


def manifest(project: Project, month: BillingMonth = JANUARY) -> Manifest:
    found = newest(project, month)
    assert isinstance(found, Manifest), found
    return found


def refused(project: Project) -> str:
    found = newest(project)
    assert isinstance(found, ManifestInvalid), found
    assert found.etag
    return str(found)


def test_the_newest_submission_over_all_exports_is_the_month(project: Project) -> None:
    deliver(project.put, Run(number=5, export="lastmonth"), costs("1"))
    deliver(project.put, Run(number=9, export="daily", layout="run ids"), costs("2"))
    deliver(project.put, Run(number=7, export="once", layout="dates first"), costs("3"))
    assert manifest(project).id == Run(number=9).run_id
    deliver(project.put, Run(number=11, export="lastmonth", manifest="2023"), costs("4"))
    assert manifest(project).id == Run(number=11).run_id
    assert manifest(project).delivery == Delivery(
        datetime(2024, 2, 11, 3, 48, 5, 8480), date(2024, 1, 1), date(2024, 1, 31)
    )


@pytest.mark.parametrize("layout", ["run times", "dates first"])
def test_without_a_submitted_time_the_folder_of_the_run_decides(
    project: Project, layout: str
) -> None:
    for number in (3, 1, 2):
        run = Run(number=number, layout=layout, manifest="2021-01-01")
        deliver(project.put, run, costs(str(number)))
    assert manifest(project).id == Run(number=3).run_id
    assert manifest(project).delivery == Delivery(
        datetime(2024, 2, 3, 3, 48), date(2024, 1, 1), date(2024, 1, 31)
    )


def test_without_any_time_the_manifest_that_was_written_last_decides(project: Project) -> None:
    for number, written in ((1, 300), (2, 500), (3, 400)):
        run = Run(number=number, layout="run ids", manifest="by hand")
        path = project.source / deliver(project.put, run, costs(str(number)))
        os.utime(path, (1_710_000_000 + written,) * 2)
    assert manifest(project).id == Run(number=2).run_id


def test_names_of_exports_choose_among_them_in_both_orders_of_folders(project: Project) -> None:
    project.export["export_names"] = ["a", "b"]
    deliver(project.put, Run(number=1, export="a"), costs("1"))
    deliver(project.put, Run(number=2, export="b", layout="dates first"), costs("2"))
    deliver(project.put, Run(number=3, export="c", scope=ENROLMENT), costs("3"))
    deliver(project.put, Run(number=4, export="d", layout="dates first"), costs("4"))
    assert manifest(project).id == Run(number=2).run_id
    project.export["export_names"] = ["c"]
    assert manifest(project).id == Run(number=3).run_id
    project.export["export_names"] = ["e"]
    missing = newest(project)
    assert isinstance(missing, ManifestMissing)
    assert "contoso has no run of 2024-01 of the exports e: " in str(missing)
    assert "has the months 2024-01; " in str(missing)


def test_exports_of_two_scopes_are_one_clear_error(project: Project) -> None:
    deliver(project.put, Run(export="a", scope=ENROLMENT.upper()), costs("1"))
    deliver(project.put, Run(export="b", scope=PROFILE, number=2), costs("2"))
    message = refused(project)
    assert f"exports/a ({ENROLMENT.lower()})" in message
    assert f"exports/b ({PROFILE.lower()})" in message
    assert "set export_names of contoso to those of one scope" in message


def test_exports_whose_scope_is_unknown_are_not_mixed_without_their_names(
    project: Project,
) -> None:
    deliver(project.put, Run(export="a", manifest="2021-01-01"), costs("1"))
    assert manifest(project).id == Run().run_id
    deliver(project.put, Run(export="b", number=2), costs("2"))
    assert "exports/a (scope unknown)" in refused(project)
    project.export["export_names"] = ["a", "b"]
    assert manifest(project).id == Run(number=2).run_id


def test_exports_of_other_datasets_are_skipped(project: Project) -> None:
    deliver(project.put, Run(number=8, export="prices", dataset="PriceSheet"), b"x")
    deliver(project.put, Run(number=9, export="actual", dataset="ActualCost"), b"x")
    missing = newest(project)
    assert isinstance(missing, ManifestMissing)
    assert "exports/actual (actualcost), exports/prices (pricesheet)" in str(missing)
    deliver(project.put, Run(dataset="focusCost"), costs("1"))
    assert manifest(project).id == Run().run_id


def test_a_month_in_progress_is_covered_until_the_day_of_its_submission(project: Project) -> None:
    deliver(project.put, Run(submitted="2024-01-16T03:48:05"), costs("1"))
    delivery = manifest(project).delivery
    assert delivery and delivery.covered_days == "2024-01-01 to 2024-01-16"


def test_a_newest_run_of_fewer_days_than_an_older_one_is_told(project: Project) -> None:
    deliver(project.put, Run(export="daily"), costs("1", "2"))
    part = Run(number=2, export="once", days=("2024-01-10", "2024-01-20"))
    deliver(project.put, part, costs("2"))
    (warning,) = manifest(project).warnings
    assert "covers 2024-01-10 to 2024-01-20, fewer days than" in warning
    assert "(2024-01-01 to 2024-01-31)" in warning


def test_a_run_whose_folder_is_of_another_month_is_refused_with_both(project: Project) -> None:
    run_info = {"runInfo": {"startDate": "2023-12-01T00:00:00", "endDate": "2023-12-31"}}
    deliver(project.put, Run(), costs("1"), changes=run_info)
    message = refused(project)
    assert "runInfo begins on 2023-12-01, in 2023-12" in message
    assert "its folder is of 2024-01-01 to 2024-01-31" in message


def test_the_newest_file_without_a_manifest_is_the_month_and_says_so(project: Project) -> None:
    for number, written in ((1, 300), (2, 500), (3, 400)):
        run = Run(number=number, layout="one file")
        path = project.source / deliver(project.put, run, costs(str(number)))
        os.utime(path, (1_710_000_000 + written,) * 2)
    found = manifest(project)
    assert [file.key for file in found.files] == [found.source.key]
    assert Run(number=2).run_id in found.source.key
    assert found.id == found.source.etag
    assert "has no manifest: it is the newest of 3 in its folder" in found.warnings[0]


def test_files_beside_the_manifests_are_no_runs(project: Project) -> None:
    folder = deliver(project.put, Run(), costs("1")).rpartition("/")[0]
    for name in ("notes.csv", "_manifest.json.bak", "part_0_0002.csv.gz"):
        project.put(f"{folder}/{name}", b"x")
    month = folder.rpartition("/")[0].rpartition("/")[0]
    project.put(f"{month}/2024/part_0_0001.csv", b"a run that is being written")
    assert [file.key.rpartition("/")[2] for file in manifest(project).files] == [
        "part_0_0001.csv.gz"
    ]


class Counted(LocalStore):
    """A folder that counts its listings and the manifests that are read."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.listed: list[str] = []
        self.below: list[str] = []
        self.manifests_read: list[str] = []

    def folder_names(self, folder: str) -> set[str]:
        self.listed.append(folder)
        return super().folder_names(folder)

    def files_below(self, folder: str) -> list[ObjectInfo]:
        self.below.append(folder)
        files: list[ObjectInfo] = []
        for path in sorted(Path(self.location(folder)).rglob("*.*")):
            files.append(self.head(str(path.relative_to(self.location("")))))
        return files

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        self.manifests_read.append(key)
        return super().read(key, known_etag=known_etag)


class OneStore(ObjectStores):
    def __init__(self, store: LocalStore) -> None:
        super().__init__()
        self.store = store

    def open(self, settings: Any) -> tuple[LocalStore, str]:
        return self.store, "exports"


@pytest.fixture
def counted(project: Project) -> Iterator[tuple[Counted, AzureSource]]:
    store = Counted(str(project.source))
    export = AzureExport.model_validate(project.export)
    yield store, AzureSource(export, OneStore(store))


def test_of_many_runs_only_those_that_can_be_the_newest_are_read(
    project: Project, counted: tuple[Counted, AzureSource]
) -> None:
    store, source = counted
    months = [JANUARY, FEBRUARY]
    for month in months:
        for export in ("daily", "lastmonth"):
            for number in range(1, 29):
                run = Run(str(month), number, export)
                path = project.source / deliver(project.put, run, costs("1", month=str(month)))
                os.utime(path, (run.submitted_at.timestamp() + 60,) * 2)
    deliver(project.put, Run("2023-09"), costs("1", month="2023-09"))
    source.newest_manifests(months)
    assert len(store.manifests_read) == 4
    assert sorted(store.listed) == [
        "exports",
        "exports/contoso-daily",
        "exports/daily",
        "exports/lastmonth",
    ]
    assert sorted(folder.rpartition("/")[2] for folder in store.below) == [
        "20240101-20240131",
        "20240101-20240131",
        "20240201-20240229",
        "20240201-20240229",
    ]
    source.newest_manifests(months)
    assert len(store.manifests_read) == 4
    deliver(project.put, Run("2024-01", 30, "daily"), costs("1"))
    found = source.newest_manifests(months)[JANUARY]
    assert isinstance(found, Manifest)
    assert found.id == Run(number=30).run_id
    assert len(store.manifests_read) == 5


def test_in_a_copy_the_folders_of_the_run_times_bound_what_is_read(
    project: Project, counted: tuple[Counted, AzureSource]
) -> None:
    store, source = counted
    for number in range(1, 29):
        deliver(project.put, Run(number=number), costs("1"))
    found = source.newest_manifests([JANUARY])[JANUARY]
    assert isinstance(found, Manifest)
    assert found.id == Run(number=28).run_id
    assert len(store.manifests_read) == 1


def test_a_run_that_vanishes_after_the_listing_is_looked_for_once_more(
    project: Project, counted: tuple[Counted, AzureSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = counted
    deliver(project.put, Run(number=1, layout="run ids"), costs("1"))
    first = project.source / "exports" / Run(number=1, layout="run ids").folder
    read = store.read

    def overwrite(key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        if first.exists():
            shutil.rmtree(first)
            deliver(project.put, Run(number=2, layout="run ids"), costs("2"))
        return read(key, known_etag=known_etag)

    monkeypatch.setattr(store, "read", overwrite)
    found = source.newest_manifests([JANUARY])[JANUARY]
    assert isinstance(found, Manifest)
    assert found.id == Run(number=2).run_id


def test_a_run_that_vanishes_again_fails(
    project: Project, counted: tuple[Counted, AzureSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, source = counted
    deliver(project.put, Run(), costs("1"))

    def gone(key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        raise ObjectMissing(f"{key}: there is no such file")

    monkeypatch.setattr(store, "read", gone)
    with pytest.raises(ObjectMissing, match=r"manifest\.json: there is no such file"):
        source.newest_manifests([JANUARY])


class Downloads:
    """A folder of a version whose first downloads fail as those of a deleted file."""

    def __init__(self, failures: int) -> None:
        self.failures, self.files = failures, list[str]()

    def fetch(self, store: Any, files: Any, *, force: bool = False) -> int:
        self.failures -= 1
        if self.failures >= 0:
            raise ObjectMissing("part: there is no such file")
        self.files = [file.key for file in files]
        return 7


def test_a_file_that_vanishes_during_the_download_is_looked_for_once_more(
    project: Project, counted: tuple[Counted, AzureSource]
) -> None:
    _, source = counted
    deliver(project.put, Run(), costs("1"))
    found = source.newest_manifests([JANUARY])[JANUARY]
    assert isinstance(found, Manifest)
    available = source.available_files(found)
    downloads = Downloads(1)
    assert source.fetch(found, available, downloads, force=False) == 7
    assert downloads.files == [file.key for file in found.files]
    with pytest.raises(FileInvalid, match="replaced this version by a newer one; run the month"):
        source.fetch(found, available, Downloads(2), force=False)


def test_a_listed_file_that_is_not_there_fails_the_month(project: Project) -> None:
    folder = deliver(project.put, Run(), costs("1"), costs("2")).rpartition("/")[0]
    (project.source / folder / "part_0_0002.csv.gz").unlink()
    error = project.materialize(export="contoso").error
    assert "part_0_0002.csv.gz does not exist, though the manifest lists it" in error


def test_other_sizes_than_the_manifest_says_are_a_warning_with_both(project: Project) -> None:
    key = deliver(project.put, Run(), costs("1"), costs("2"))
    document = json.loads((project.source / key).read_bytes())
    document["blobs"][0]["byteCount"] = 915
    document["blobs"][1]["byteCount"] = 916
    project.put(key, json.dumps(document).encode())
    warning = project.load(export="contoso").metadata("staged_files")["warnings"]
    size = (project.source / key).with_name("part_0_0001.csv.gz").stat().st_size
    assert f"part_0_0001.csv.gz has {size} bytes, and the manifest says 915" in warning
    assert "(1 more file differs)" in warning


def test_a_container_is_read_from_s3_as_from_a_folder(
    project: Project, s3: S3Server, bucket: str
) -> None:
    client = s3.client()
    project.export |= {"source": f"s3://{bucket}/exports", "endpoint_url": s3.url}
    run = Run()
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body), run, costs("1", "2")
    )
    assert requested_months(project.tick(sensor="contoso_manifests")) == ["2024-01"]
    assert project.load(export="contoso").data_versions() == {run.run_id}
    assert project.query("SELECT sum(billedcost) FROM azure") == [(3,)]


def test_a_container_of_azure_is_read_with_the_run_that_replaces_another(
    project: Project, azure: AzureServer, container: str
) -> None:
    client = azure.container(container)
    project.export["source"] = f"{azure.url}/{container}/exports"

    def put(key: str, body: bytes) -> None:
        client.upload_blob(key, body, overwrite=True)

    deliver(put, Run(layout="run ids"), costs("1", "2"))
    assert project.load(export="contoso").data_versions() == {Run().run_id}
    assert set(project.load(export="contoso").outcomes().values()) == {"unchanged"}
    for blob in client.list_blob_names():
        client.delete_blob(blob)
    deliver(put, Run(layout="run ids", number=2), costs("1", "5"), suffix="snappy.parquet")
    tick = project.tick(sensor="contoso_manifests")
    assert requested_months(tick) == ["2024-01"]
    assert project.load(export="contoso").data_versions() == {Run(number=2).run_id}
    assert project.query("SELECT sum(billedcost) FROM azure") == [(6,)]


def test_times_of_a_manifest_are_compared_in_utc(project: Project) -> None:
    for number, submitted in (
        (1, "2024-02-02T01:00:00+02:00"),
        (2, "2024-02-01T23:30:00.1234567Z"),
    ):
        run_info = {"submittedTime": submitted, "runId": f"run-{number}"}
        run = Run(number=number, layout="run ids")
        deliver(project.put, run, costs("1"), changes={"runInfo": run_info})
    found = manifest(project)
    assert found.id == "run-2"
    assert found.delivery and found.delivery.submitted_at == datetime(
        2024, 2, 1, 23, 30, 0, 123456, tzinfo=UTC
    ).replace(tzinfo=None)


@pytest.mark.parametrize(
    "name", ["a'b\"c; DROP TABLE azure", "ü [x]*?{1}", "%2e%2e", "a=b&c#d", " ", "x" * 200, "{0}"]
)
@pytest.mark.parametrize("layout", ["run times", "dates first", "one file"])
def test_an_export_may_have_any_name_that_a_folder_can_have(
    project: Project, name: str, layout: str
) -> None:
    run = Run(export=name, layout=layout)
    deliver(project.put, run, costs("1"), root=f"{name}/")
    project.export |= {"export_names": [name], "start_month": "2024-01", "end_month": "2024-01"}
    found = manifest(project)
    assert len(found.files) == 1
    assert AzureSource(AzureExport.model_validate(project.export), ObjectStores()).available_files(
        found
    )


def test_a_folder_of_files_with_unusual_names_is_loaded(project: Project) -> None:
    run = Run(export="ü 'x' [1]*")
    key = deliver(project.put, run, costs("1"), costs("2"), suffix="csv")
    file = project.source / key
    document = json.loads(file.read_bytes())
    names = ["a'b [*].csv", "%20?.csv"]
    for number, (blob, name) in enumerate(zip(document["blobs"], names, strict=True), 1):
        file.with_name(f"part_0_{number:04}.csv").rename(file.with_name(name))
        blob["blobName"] = f"elsewhere/{name}"
    project.put(key, json.dumps(document).encode())
    project.load(export="contoso")
    assert project.query("SELECT sum(billedcost) FROM azure") == [(3,)]
