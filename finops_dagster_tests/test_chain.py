"""All stages of one export, and the cost of a month: requests to the store, and bytes read."""

import csv
import gzip
import hashlib
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest
from rich.filesize import decimal
from tenacity import Retrying, stop_after_attempt

from finops_dagster_tests.cur import HEADERS, Put, csv_bytes, line_item, line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import STAGES, UNCHANGED, Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def loaded(project: Project) -> Project:
    """Load January with two line items, which cost 1 and 2."""
    project.deliver("1", "2")
    project.load()
    return project


def test_every_stage_has_the_same_totals_and_version(project: Project) -> None:
    keys = project.deliver(line_items("2024-01", "0.1", "0.02"), line_items("2024-01", "3"))
    outcome = project.load()
    assert outcome.data_versions() == {"v1"}
    for stage in STAGES[1:]:
        rows = "rows" if stage == "staged_files" else "dagster/partition_row_count"
        metadata = outcome.metadata(stage)
        assert (metadata[rows], metadata["total_cost_exact"]) == (3, "3.12")
    assert outcome.metadata("staged_files")["files"] == 2
    assert outcome.metadata("manifest")["columns"] == len(HEADERS)
    assert all(outcome.checks().values())

    bodies = [(project.source / key).read_bytes() for key in keys]
    ((files, size, run_id, *loaded),) = project.ledger(
        "files, byte_count, run_id, export, billing_month::VARCHAR, manifest_id, table_name, "
        "row_count, total_cost, file_count, state"
    )
    total = Decimal("3.12")
    assert loaded == ["acme", "2024-01-01", "v1", "aws_billing_data", 3, total, 2, "loaded"]
    assert (size, len(run_id)) == (sum(map(len, bodies)), 36)
    assert [(file["name"], file["size"], file["sha256"]) for file in files] == [
        (Path(key).name, len(body), hashlib.sha256(body).hexdigest())
        for key, body in zip(keys, bodies, strict=True)
    ]

    footer = pq.read_metadata(project.parquet_path())
    assert footer.row_group(0).column(0).compression == "ZSTD"
    assert footer.metadata[b"manifest_id"] == b"v1"
    assert Decimal(footer.metadata[b"total_cost"].decode()) == total
    assert {path.name for path in project.parquet_path().parent.iterdir()} == {
        "acme-2024-01.parquet",
        ".acme-2024-01.parquet.lock",
    }


def test_column_types_are_the_same_in_table_and_parquet(project: Project) -> None:
    headers = (*HEADERS, "resourceTags/user:Cost Center", "costCategory/Team")
    types = {"resourceTags/user:Cost Center": "BigDecimal", "costCategory/Team": "DateTime"}
    row = line_item("2024-01", **{"resourceTags__user:Cost Center": "0042"})
    project.deliver([row], headers=headers, types=types)
    project.load()
    expected = {
        "billing_month": "DATE",
        "manifest_id": "VARCHAR",
        "identity_lineitemid": "VARCHAR",
        "bill_payeraccountid": "VARCHAR",
        "bill_billingperiodstartdate": "TIMESTAMP",
        "lineitem_usagestartdate": "TIMESTAMP",
        "lineitem_productcode": "VARCHAR",
        "lineitem_lineitemdescription": "VARCHAR",
        "lineitem_unblendedcost": "DECIMAL(38,18)",
        "resourcetags_user_cost_center": "VARCHAR",
        "costcategory_team": "VARCHAR",
    }
    in_table = project.query("DESCRIBE aws_billing_data")
    in_lake = duckdb.sql(f"DESCRIBE FROM {project.parquet_scan()}").fetchall()
    for described in (in_table, in_lake):
        assert [row[:2] for row in described] == list(expected.items())
    assert project.column("resourcetags_user_cost_center") == ["0042"]


def test_an_unchanged_month_needs_no_staged_files(loaded: Project) -> None:
    shutil.rmtree(loaded.folder / "data/staging")
    shutil.rmtree(loaded.source / "acme-cur/20240101-20240201/v1")
    assert loaded.load().outcomes() == {**UNCHANGED, "manifest": "read"}
    assert loaded.load().outcomes() == UNCHANGED


COST_2 = "DELETE FROM aws_billing_data WHERE lineitem_unblendedcost = 2"
LOADED, DAMAGED = {"billing_table": "loaded"}, "exported again, as the file was damaged"


@pytest.mark.parametrize(
    ("damage", "repaired"),
    [
        (lambda project: project.execute(COST_2), LOADED),
        (lambda project: project.database_file.unlink(), LOADED),
        (lambda project: project.parquet_path().unlink(), {"parquet": "exported"}),
        (lambda project: project.parquet_path().write_bytes(b"PAR1"), {"parquet": DAMAGED}),
    ],
    ids=["rows-deleted", "database-lost", "parquet-lost", "parquet-damaged"],
)
def test_only_the_lost_stage_is_run_again(
    loaded: Project, damage: Callable[[Project], object], repaired: dict[str, str]
) -> None:
    damage(loaded)
    assert loaded.load().outcomes() == UNCHANGED | repaired
    assert loaded.totals() == loaded.parquet_totals() == (2, 3)


def test_a_file_of_the_recorded_version_is_current_without_the_rows_of_the_table(
    loaded: Project,
) -> None:
    loaded.execute(COST_2)
    assert loaded.load(stages=["parquet"]).outcomes() == {"parquet": "unchanged"}
    forced = loaded.materialize(stages=["parquet"], force=True)
    assert "run finops aws load-billing-local" in forced.error
    assert loaded.parquet_totals() == (2, 3)


def test_dagster_writes_and_reads_no_more_than_an_unchanged_month_needs(
    loaded: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, fetched = dg.DagsterInstance.fetch_materializations, list[Any]()

    def fetch_and_count(*arguments: Any, **options: Any) -> dg.EventRecordsResult:
        fetched.append(arguments)
        return fetch(*arguments, **options)

    monkeypatch.setattr(dg.DagsterInstance, "fetch_materializations", fetch_and_count)
    unchanged = loaded.load()
    events, checks = unchanged.events(), len(unchanged.checks())
    # Dagster would write three events for each record that it hands to the next stage itself.
    assert not {"HANDLED_OUTPUT", "LOADED_INPUT", "STEP_INPUT"} & events.keys()
    assert events["STEP_OUTPUT"] == len(STAGES) + checks
    # Each check finds its materialization once, and two stages find the metadata that they repeat.
    assert len(fetched) == checks + 2


def test_a_staged_file_that_was_changed_is_fetched_again(loaded: Project) -> None:
    loaded.database_file.unlink()
    (staged,) = loaded.folder.glob("data/staging/acme/2024-01/v1/*.csv.gz")
    other, size = gzip.compress(csv_bytes(line_items("2024-01", "9"))), staged.stat().st_size
    staged.write_bytes(other.ljust(size, b"\0")[:size])
    assert loaded.load().metadata("staged_files")["bytes_fetched"] > 0
    assert loaded.totals() == (2, 3)


def test_a_half_written_log_line_is_ignored(project: Project) -> None:
    project.deliver(line_items("2024-01", "1"), line_items("2024-01", "2"))
    first = project.load(stages=["manifest", "staged_files"]).metadata("staged_files")
    (log,) = project.folder.glob("data/staging/acme/2024-01/v1/staged.jsonl")
    log.write_text(log.read_text()[:-5])
    again = project.load().metadata("staged_files")
    assert 0 < again["bytes_fetched"] < first["bytes_fetched"]
    assert project.totals() == (2, 3)


def test_files_are_counted_again_after_a_failed_count(project: Project) -> None:
    project.deliver("1")
    project.load(stages=["manifest", "staged_files"])
    project.deliver("much")
    for _ in range(2):  # the second time the file is there, and was never counted
        assert "'much' cannot be kept exactly" in project.materialize().error
    project.deliver("2")
    project.load()
    assert project.totals() == (1, 2)


@pytest.mark.thorough
def test_each_month_can_have_its_own_database(project: Project, finops: Finops) -> None:
    project.database = {"duckdb": {"database_path": "data/{export}-{month}.duckdb"}}
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
        project.load(month)
        assert project.load(month).outcomes() == UNCHANGED
    paths = ("--database-config", "database_path=data/{export}-{month}.duckdb")
    loaded = finops.json("state", "loaded", *paths)
    assert [(row["month"], row["version"]) for row in loaded] == [
        ("2024-02", "v1"),
        ("2024-01", "v1"),
    ]
    databases = ["acme-2024-01.duckdb", "acme-2024-02.duckdb"]
    assert sorted(path.name for path in Path("data").iterdir()) == [
        *databases,
        "parquet",
        "staging",
    ]


def test_an_unusual_cost_warns_and_is_loaded(project: Project) -> None:
    for month, cost in {"2024-01": "100", "2024-02": "151"}.items():
        project.deliver(cost, month=month)
        assert project.load(month).checks()["billing_table.usual_cost"] is (cost == "100")


def test_a_stage_run_alone_names_the_stage_to_run_first(project: Project) -> None:
    project.deliver("1")
    commands = ["extract-manifests", "extract-billing", "load-billing-local"]
    for stage, command in zip(STAGES[1:], commands, strict=True):
        error = project.materialize(stages=[stage]).error
        assert error.endswith(
            f"; run finops aws {command} --export acme --start-date 2024-01 --end-date 2024-01"
        )
    project.load(stages=["manifest"])
    error = project.materialize(stages=["billing_table"]).error
    assert "run finops aws extract-billing --export acme " in error


@pytest.fixture
def bytes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[Path]]:
    """Return a function that counts the bytes that DuckDB read of each file since its last call."""
    connect, logs, numbers = duckdb.connect, tmp_path / "logs", count()
    logs.mkdir()

    def logged(*arguments: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        connection = connect(*arguments, **options)
        log = f"{{'path': '{logs / f'{next(numbers):04}'}'}}"
        connection.execute(
            f"CALL enable_logging(['FileSystem'], storage = 'file', storage_config = {log})"
        )
        return connection

    def bytes_since() -> Counter[Path]:
        read: Counter[Path] = Counter()
        for path in sorted(logs.glob("*/duckdb_log_entries.csv")):
            with path.open(newline="") as file:
                for entry in csv.DictReader(file):
                    if (message := json.loads(entry["message"]))["op"] == "READ":
                        read[Path(message["path"]).absolute()] += int(message["bytes"])
            path.unlink()
        return read

    monkeypatch.setattr(duckdb, "connect", logged)
    return bytes_since


def parts(month: str, number: int, rows: int) -> list[bytes]:
    """Return gzip files that stay large, as no two of their rows are alike."""
    generator = random.Random(month)

    def row() -> dict[str, str]:
        return line_item(month, lineItem__LineItemDescription=generator.randbytes(200).hex())

    return [gzip.compress(csv_bytes(row() for _ in range(rows))) for _ in range(number)]


def test_each_file_is_requested_once_per_version(
    project: Project, s3: S3Server, put_in_bucket: Put
) -> None:
    def requests() -> Counter[str]:
        counted = Counter(f"{method} {Path(path).suffix}" for method, path in s3.requests)
        s3.requests.clear()
        return counted

    files = parts("2024-01", 3, 100)
    project.deliver(*files)
    requests()
    assert project.load().metadata("staged_files")["bytes_fetched"] == sum(map(len, files))
    assert requests() == {"GET .json": 1, "HEAD .gz": 3, "GET .gz": 3}
    for folder in (project.folder / "data/staging/acme/2024-01").glob("*/"):
        shutil.rmtree(folder)  # as cleanup does
    for _ in range(2):
        assert set(project.load().outcomes().values()) == {"unchanged"}
        assert requests() == {"GET .json": 1, "HEAD .gz": 3}
    forced = project.load(force=True)
    outcomes = ["unchanged", "staged", "loaded", "exported"]
    assert forced.outcomes() == dict(zip(STAGES, outcomes, strict=True))
    assert requests()["GET .gz"] == forced.metadata("staged_files")["files"] == 3


def test_loading_a_month_reads_no_file_of_another(
    project: Project, bytes_read: Callable[[], Counter[Path]]
) -> None:
    for month in ("2024-01", "2024-02"):
        project.deliver(*parts(month, 2, 4000), month=month)
    project.load("2024-01")
    bytes_read()
    project.load("2024-02")
    assert not [path for path in bytes_read() if "2024-01" in str(path)]
    project.load("2024-02")
    assert not [path for path in bytes_read() if path.suffix in (".gz", ".parquet")]


@pytest.mark.thorough
def test_the_log_reports_progress(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finops_dagster.progress._SECONDS_BETWEEN_REPORTS", 0.001)
    project.database = {"duckdb": {"threads": 1}}
    files = parts("2024-01", 2, 20_000)
    project.deliver(*files)
    size = re.escape(decimal(sum(map(len, files))))
    # A statement may end before it is first asked how far it is.
    for attempt in Retrying(stop=stop_after_attempt(30), reraise=True):
        with attempt:
            project.load(force=True)
            for line in (
                rf"counted \d.* of {size}\n",
                r"loaded [1-9][\d,]* rows of 40,000 rows\n",
                r"exported [1-9][\d,]* rows of 40,000 rows\n",
            ):
                assert re.search(line, caplog.text)
