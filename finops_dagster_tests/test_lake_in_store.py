"""The lake in a store: the whole chain, its commands, other machines, and what a query moves."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import restatements_of_footer
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.lake import (
    Lake,
    LakeFile,
    footer_texts_of_version,
    map_months,
    parquet_relation,
    replacing_lake_file,
)
from finops_dagster.object_stores import ObjectChanged, WritableStore, open_store
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import UNCHANGED, Project
from finops_dagster_tests.servers.proxy import Proxy
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.small_mapping import small_mapping

MONTH = BillingMonth.parse("2024-01")
Machine = Callable[[str], Project]


def in_every_store(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in each kind of store; `make test` runs it in S3."""
    kinds = [*(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("https", "abfss", "gs"))]
    return pytest.mark.parametrize("lake_storage", ["s3", *kinds], indirect=True)(test)


@pytest.fixture
def machine(
    project: Project, lake_storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Machine:
    """Return a function that changes to a machine by its name; all have their lake in one store.

    A machine that is new keeps nothing.
    """

    def change(name: str) -> Project:
        folder = project.folder / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        other = Project(folder)
        other.put, other.export = project.put, project.export
        other.storage = lake_storage
        return other

    return change


@pytest.fixture
def store_server(request: pytest.FixtureRequest, lake_storage: dict[str, Any]) -> S3Server | Proxy:
    """Return the server of the lake's store; Google's has no log here."""
    scheme = lake_storage["parquet_dir"].partition("://")[0]
    server: S3Server | Proxy = request.getfixturevalue(
        {"s3": "s3", "gs": "gcs"}.get(scheme, "azure")
    )
    return server


def lake_of(project: Project) -> Lake:
    return project.settings().storage.open_lake()


def write(
    lake: Lake, version: str, rows: str = "SELECT 1 AS cost", month: BillingMonth = MONTH
) -> None:
    """Write a version of a month to the lake, without a pipeline."""
    with duckdb.connect() as connection:
        totals = connection.execute(f"SELECT count(*), sum(cost) FROM ({rows})").fetchone()
        footer = footer_texts_of_version(LoadedVersion(version, Totals.from_result_row(totals)))
        with replacing_lake_file(connection, Sql(rows), lake.file("acme", month), footer):
            pass


def store_of(project: Project) -> WritableStore:
    """Return the store of a project's lake."""
    keys = project.storage.get("lake", {})
    return open_store(StoreSettings(source=project.storage["parquet_dir"], **keys))[0]


def objects(project: Project) -> list[str]:
    return [info.key for info in store_of(project).files_below("lake")]


def moved_files(server: S3Server | Proxy) -> list[str]:
    """Return the Parquet files that were downloaded or uploaded since the log was cleared."""
    return [p for verb, p in server.requests if verb in ("GET", "PUT") and p.endswith(".parquet")]


@in_every_store
def test_a_month_ends_in_a_file_of_its_version_that_a_pointer_names(machine: Machine) -> None:
    project = machine("a")
    project.deliver("1.000000000000000001", "2")
    run = project.load()
    assert run.outcomes()["parquet"] == "exported"
    assert project.load().outcomes() == UNCHANGED
    pointer, file = sorted(objects(project), key=len)
    month = "lake/acme/billing_month=2024-01/acme-2024-01"
    assert pointer == f"{month}.json"
    assert re.fullmatch(rf"{month}-[0-9a-f]{{12}}\.parquet", file)
    assert run.metadata("parquet")["path"] == store_of(project).location(pointer)
    version = lake_of(project).file("acme", MONTH).version()
    assert version
    assert (version.manifest_id, str(version.totals.cost)) == ("v1", "3.000000000000000001")


@pytest.mark.thorough
@in_every_store
def test_a_machine_that_keeps_nothing_loads_and_moves_nothing_that_the_lake_has(
    machine: Machine, store_server: S3Server | Proxy
) -> None:
    project = machine("a")
    project.deliver("1", "2")
    project.load()
    other = machine("b")
    store_server.requests.clear()
    run = other.load()
    assert run.outcomes() == {**UNCHANGED, "manifest": "read"}
    assert not moved_files(store_server)
    assert run.metadata("billing_table")["total_cost_exact"] == "3"
    # A later version is loaded there, and says what it changed.
    other.deliver("1", "2", "4", version="v2")
    run = other.load()
    assert run.outcomes()["parquet"] == "exported"
    texts = lake_of(other).file("acme", MONTH).footer_texts()
    assert texts
    (restatement,) = restatements_of_footer(texts)
    assert (restatement.replaced_id, restatement.manifest_id) == ("v1", "v2")


@pytest.mark.thorough
@in_every_store
def test_a_month_that_another_machine_has_written_is_compared_and_stays(machine: Machine) -> None:
    machine("a").deliver("1", "2")
    for name in ("a", "b"):
        machine(name).load(force=True)  # Each of them has a table and a file of its own.
    project = machine("a")
    assert project.load().outcomes() == UNCHANGED
    assert machine("b").load().outcomes() == UNCHANGED


@pytest.mark.parametrize(  # Google's server has no log here.
    "lake_storage", ["s3", pytest.param("abfss", marks=pytest.mark.thorough)], indirect=True
)
def test_many_months_are_read_in_their_order_by_one_request_each(
    machine: Machine, store_server: S3Server | Proxy
) -> None:
    project = machine("a")
    lake, months = lake_of(project), [BillingMonth(2024, number) for number in range(1, 6)]
    for month in months:
        write(lake, f"v{month}", month=month)
    files = lake.files("acme")
    store_server.requests.clear()
    versions = map_months(lake, LakeFile.version, files.values())
    assert [v and v.manifest_id for v in versions] == [f"v{month}" for month in months]
    assert len([path for _, path in store_server.requests if ".json" in path]) == len(months)
    for month in (months[3], months[1]):
        store_of(project).delete(f"lake/acme/billing_month={month}/acme-{month}.json")
    with duckdb.connect() as connection, pytest.raises(BillError, match=f"acme-{months[1]}.json"):
        lake.relation(connection, [*files.values()])


def reads_of_pointers(server: S3Server) -> Counter[str]:
    """Return how often the pointers of bills and of charges were read since the log was cleared."""
    pointers = [p for verb, p in server.requests if verb == "GET" and p.endswith(".json")]
    return Counter("charges" if "/lake/focus/" in p else "bill" for p in pointers if "/lake/" in p)


@pytest.mark.thorough
def test_each_stage_reads_a_pointer_once_or_twice(
    machine: Machine, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    project = machine("a")
    project.deliver("1", "2")
    for stage, bill, charges in (
        ("manifest", 2, 0),
        ("staged_files", 2, 0),
        ("billing_table", 2, 0),
        ("parquet", 2, 0),
        ("focus", 3, 4),
    ):
        s3.requests.clear()
        project.load(stages=[stage])
        reads = reads_of_pointers(s3)
        assert reads == {"bill": bill} | ({"charges": charges} if charges else {}), stage


def test_a_snapshot_speaks_of_one_version_and_replaces_only_that_one(machine: Machine) -> None:
    lake = lake_of(machine("a"))
    missing = lake.file("acme", MONTH).snapshot()
    write(lake, "v1")
    assert not missing.exists()
    first = lake.file("acme", MONTH).snapshot()
    write(lake, "v2", "SELECT 2 AS cost")
    for file, manifest_id in ((first, "v1"), (lake.file("acme", MONTH), "v2")):
        version = file.version()
        assert version
        assert version.manifest_id == manifest_id
        with duckdb.connect() as connection:
            (cost,) = connection.execute(f"FROM {parquet_relation(file.local_path())}").fetchone()
        assert cost == int(manifest_id[1])
    for snapshot in (missing, first):
        with (
            duckdb.connect() as connection,
            pytest.raises(ObjectChanged, match="version v2, which stays"),
            replacing_lake_file(connection, Sql("SELECT 3 AS cost"), snapshot, {}),
        ):
            pass


@in_every_store
def test_of_two_writers_of_different_versions_the_second_fails_and_changes_nothing(
    machine: Machine,
) -> None:
    project = machine("a")
    slow, quick = lake_of(project), lake_of(project)
    write(slow, "v1")
    slow.file("acme", MONTH).record_version_at_start("run 1")
    write(quick, "v2", "SELECT 2 AS cost")
    with pytest.raises(ObjectChanged, match=r"another run meanwhile as version v2, which stays"):
        write(slow, "v3")
    version = slow.file("acme", MONTH).version()
    assert version
    assert version.manifest_id == "v2"
    write(slow, "v2", "SELECT 2 AS cost")  # The same version counts as written.
    slow.file("acme", MONTH).record_version_at_start("run 2")
    write(slow, "v3")
    version = quick.file("acme", MONTH).version()
    assert version
    assert version.manifest_id == "v3"


@pytest.mark.thorough
def test_a_run_that_was_overtaken_fails_in_one_line_and_the_newer_version_stays(
    machine: Machine, s3: S3Server
) -> None:
    project = machine("a")
    project.deliver("1")
    project.load()
    project.deliver("2", version="v2")

    def overtake(environ: dict[str, Any], _: object) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".parquet"):
            s3.fault = None
            write(lake_of(project), "v3", "SELECT 5 AS cost")
        return None

    s3.fault = overtake
    run = project.materialize()
    assert not run.success
    assert "was written by another run meanwhile as version v3, which stays" in run.error
    version = lake_of(project).file("acme", MONTH).version()
    assert version
    assert version.manifest_id == "v3"


@in_every_store
def test_files_that_no_month_has_any_more_are_deleted_once_they_are_old(machine: Machine) -> None:
    project = machine("a")
    lake = lake_of(project)
    for version in ("v1", "v2"):
        write(lake, version)
    assert len(objects(project)) == 3
    assert lake.unneeded_objects("acme", datetime.now(UTC) - timedelta(days=1)) == []
    (replaced,) = lake.unneeded_objects("acme", datetime.now(UTC) + timedelta(days=1))
    lake.delete_object(replaced)
    assert len(objects(project)) == 2
    assert lake.file("acme", MONTH).local_path().exists()


@in_every_store
def test_an_old_file_that_was_replaced_just_now_is_not_deleted(machine: Machine) -> None:
    project = machine("a")
    lake, written = lake_of(project), set[datetime]()
    while len(written) < 2:  # Some stores count whole seconds.
        write(lake, f"v{len(objects(project))}")
        listed = store_of(project).files_below("lake")
        written = {info.last_modified for info in listed if info.key.endswith(".parquet")}
    assert lake.unneeded_objects("acme", max(written)) == []
    assert lake.unneeded_objects("acme", max(written) + timedelta(seconds=1)) != []


@pytest.mark.thorough
@in_every_store
def test_damage_in_the_store_is_found_and_repaired(machine: Machine) -> None:
    project = machine("a")
    project.deliver("1", "2")
    project.load()
    (file,) = (key for key in objects(project) if key.endswith(".parquet"))
    store_of(project).delete(file)
    store_of(project).replace_if_unchanged(file, b"PAR1", etag=None)
    assert project.load().outcomes()["parquet"] == "exported again, as the file was damaged"
    assert project.load().outcomes() == UNCHANGED


@pytest.mark.thorough
def test_a_query_moves_only_the_columns_that_it_asks_for(
    machine: Machine, s3: S3Server, bucket: str
) -> None:
    lake = lake_of(machine("a"))
    wide = ", ".join(f"hash(range * {n}) AS column_{n}" for n in range(60))
    for month in range(1, 5):
        rows = f"SELECT CAST(range AS DECIMAL(38, 18)) AS cost, {wide} FROM range(20_000)"
        with duckdb.connect() as connection:
            footer = footer_texts_of_version(
                LoadedVersion("v1", Totals.from_result_row((20_000, None)))
            )
            file = lake.file("acme", BillingMonth.parse(f"2024-0{month}"))
            with replacing_lake_file(connection, Sql(rows), file, footer):
                pass
    stored = s3.client().list_objects_v2(Bucket=bucket, Prefix="lake/")["Contents"]
    size = sum(entry["Size"] for entry in stored)
    moved: list[int] = []

    def count(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = b"".join(s3.serve(environ, start_response))
        moved.append(len(body))
        return [body]

    with duckdb.connect() as connection:
        s3.fault = count
        relation = lake.relation(connection, [*lake.files("acme").values()])
        (total,) = connection.execute(f"SELECT sum(cost) FROM {relation}").fetchone() or ()
        s3.fault = None
    assert total == 4 * sum(range(20_000))
    assert sum(moved) < size / 8


@in_every_store
def test_months_of_different_columns_are_one_relation(machine: Machine) -> None:
    lake = lake_of(machine("a"))
    with duckdb.connect() as connection:
        for month, rows in (
            ("2024-01", "SELECT 1 AS cost"),
            ("2024-02", "SELECT 2.5 AS cost, 'x' AS tag"),
        ):
            file, footer = (
                lake.file("acme", BillingMonth.parse(month)),
                footer_texts_of_version(LoadedVersion("v1", Totals(1, Decimal(1)))),
            )
            with replacing_lake_file(connection, Sql(rows), file, footer):
                pass
        relation = lake.relation(connection, [*lake.files("acme").values()])
        found = connection.execute(f"SELECT cost, tag FROM {relation} ORDER BY 1").fetchall()
    assert [(str(cost), tag) for cost, tag in found] == [("1.0", None), ("2.5", "x")]


@pytest.mark.thorough
def test_a_run_that_is_killed_before_the_pointer_leaves_the_old_version_whole(
    machine: Machine, s3: S3Server
) -> None:
    project = machine("a")
    (project.folder / "source").symlink_to(project.folder.parent / "source")
    project.deliver("1")
    finops = Finops(project, settings_of(project))
    finops("aws", "run-pipeline")
    project.deliver("2", version="v2")
    process = finops.start("aws", "run-pipeline")

    def kill(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes] | None:
        if environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".json"):
            os.kill(process.pid, signal.SIGKILL)
            start_response("500 Internal Server Error", [])
            return [b""]
        return None

    s3.fault = kill
    process.communicate()
    s3.fault = None
    assert process.returncode == -signal.SIGKILL
    with lake_of(project).file("acme", MONTH).local_path().open("rb") as file:
        assert file.read(4) == b"PAR1"
    version = lake_of(project).file("acme", MONTH).version()
    assert version
    assert version.manifest_id == "v1"
    finops("aws", "run-pipeline")
    version = lake_of(project).file("acme", MONTH).version()
    assert version
    assert version.manifest_id == "v2"


def settings_of(project: Project) -> str:
    keys = "".join(f'{key} = "{text}"\n' for key, text in project.storage.get("lake", {}).items())
    lake = f"[storage.lake]\n{keys}" if keys else ""
    return f'[storage]\nparquet_dir = "{project.storage["parquet_dir"]}"\n{lake}'


@pytest.mark.thorough
@in_every_store
def test_commands_answer_on_a_machine_that_keeps_nothing(
    machine: Machine, store_server: S3Server | Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    project = machine("a")
    project.deliver("1", "2")
    (project.folder / "source").symlink_to(project.folder.parent / "source")
    Finops(project, settings_of(project))("aws", "run-pipeline")
    other = machine("b")
    (other.folder / "source").symlink_to(other.folder.parent / "source")
    finops = Finops(other, settings_of(other))
    store_server.requests.clear()
    row = next(r for r in finops.json("state", "list") if r["month"] == "2024-01")
    assert (row["parquet"], row["rows"], row["focus"]) == ("v1", 2, "v1")
    shown = finops.json("state", "show", "acme", "2024-01")
    assert {row["version"] for row in shown} == {"v1"}
    assert finops.json("state", "loaded")[0]["version"] == "v1"
    assert not moved_files(store_server)
    assert "all agree" in finops("state", "verify")
    assert "all agree" in finops("state", "verify", "--deep")
    assert costs_of_charges(finops) == (3, 2)
    assert "checked 1 month" in finops.run("focus", "check").output
    finops("report", "--out", "page.html")
    assert (other.folder / "page.html").stat().st_size > 100_000
    assert project.storage["parquet_dir"] in finops("config", "check")
    assert "unchanged" in finops("aws", "run-pipeline")
    # A restatement is loaded there, and what cleanup deletes is not the lake's.
    other.deliver("1", "2", "4", version="v2")
    finops("aws", "run-pipeline")
    finops("state", "cleanup", "--older-than", "0h")
    assert costs_of_charges(finops) == (7, 3)
    third = machine("c")
    assert "all agree" in Finops(third, settings_of(third))("state", "verify", "--deep")


@pytest.mark.thorough
@pytest.mark.parametrize("lake_storage", ["s3"], indirect=True)
def test_verify_says_that_no_cells_are_compared_without_the_table(machine: Machine) -> None:
    project = machine("a")
    project.deliver("1", "2")
    (project.folder / "source").symlink_to(project.folder.parent / "source")
    path = project.folder / "warehouse.duckdb"
    settings = f'{settings_of(project)}[database.duckdb]\nwarehouse_path = "{path}"\n'
    Finops(project, settings)("aws", "run-pipeline")
    with duckdb.connect(str(path)) as warehouse:
        warehouse.execute("UPDATE aws_billing_data SET lineitem_productcode = 'EC3'")
    deep = Finops(machine("b"), settings).run("state", "verify", "--deep")
    assert deep.stdout == "all agree\n"
    assert (
        "not checked in 1 month: cells of duckdb and of the table, which this machine does not have"
        in deep.stderr.splitlines()
    )


@pytest.mark.thorough
def test_an_import_needs_nothing_that_the_lake_in_the_store_has(
    machine: Machine, s3: S3Server, bucket: str
) -> None:
    project = machine("a")
    (project.folder / "source").symlink_to(project.folder.parent / "source")
    finops = Finops(project, settings_of(project))
    files, pointers = [], []
    for version in ("v1", "v2"):
        project.deliver(version[1], version=version)
        finops("aws", "run-pipeline")
        files.append(f"{project.folder}/{version}.json")
        finops("state", "export", files[-1])
        pointer = {"Bucket": bucket, "Key": min(objects(project), key=len)}
        pointers.append(s3.client().get_object(**pointer)["Body"].read())
    other = machine("b")
    (other.folder / "source").symlink_to(other.folder.parent / "source")
    finops = Finops(other, settings_of(other))
    nothing = "in the data; nothing needs to be done, as the"
    in_lake = f"but no complete month {nothing} lake has the month"
    newer = f"but v2 {nothing} data is newer than the file"
    local = ("manifest", "staged_files", "billing_table")
    for file, version, refused in (
        (files[0], "v1", {**dict.fromkeys(local, in_lake), "parquet": newer}),
        (files[1], "v2", dict.fromkeys(local, in_lake)),
    ):
        printed = finops("state", "import", file, code=1).splitlines()
        assert printed[1:] == [
            f"acme 2024-01  refused: {stage} has {version} in the file, {end}"
            for stage, end in refused.items()
        ]
    finops("aws", "run-pipeline")
    printed = finops("state", "import", files[0], code=1)
    assert f"manifest has v1 in the file, {newer}" in printed
    assert "state reprocess" not in printed
    s3.client().put_object(**pointer, Body=pointers[0])  # The lake is older than the file now.
    assert "parquet has v2 in the file, but v1 in the data; run finops state reprocess" in finops(
        "state", "import", files[1], code=1
    )


def costs_of_charges(finops: Finops) -> tuple[Decimal, int]:
    rows = finops.json("query", "SELECT sum(BilledCost) AS cost, count(*) AS charges FROM focus")
    return Decimal(rows[0]["cost"]), rows[0]["charges"]
