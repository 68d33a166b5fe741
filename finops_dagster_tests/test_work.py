"""What a month costs: requests to the store, and bytes that are read."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.filesize import decimal
from tenacity import Retrying, stop_after_attempt

from finops_dagster_tests.cur import Put, csv_bytes, line_item
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def bytes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[Path]]:
    """The bytes that DuckDB read of each file since this was last called."""
    connect, logs, numbers = duckdb.connect, tmp_path / "logs", count()
    logs.mkdir()

    def logged(*arguments: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        connection = connect(*arguments, **options)
        log = f"{{'path': '{logs / f'{next(numbers):04}'}'}}"
        connection.execute(
            f"CALL enable_logging(['FileSystem'], storage = 'file', storage_config = {log})"
        )
        return connection

    def since() -> Counter[Path]:
        read: Counter[Path] = Counter()
        for path in sorted(logs.glob("*/duckdb_log_entries.csv")):
            with path.open(newline="") as file:
                for entry in csv.DictReader(file):
                    if (message := json.loads(entry["message"]))["op"] == "READ":
                        read[Path(message["path"]).absolute()] += int(message["bytes"])
            path.unlink()
        return read

    monkeypatch.setattr(duckdb, "connect", logged)
    return since


def parts(month: str, number: int, rows: int) -> list[bytes]:
    """Gzip files that stay large, as no two of their rows are alike."""
    chance = random.Random(month)
    texts = ([chance.randbytes(200).hex() for _ in range(rows)] for _ in range(number))
    return [
        gzip.compress(csv_bytes(line_item(month, lineItem__LineItemDescription=t) for t in each))
        for each in texts
    ]


def test_a_month_costs_each_file_once(project: Project, s3: S3Server, in_bucket: Put) -> None:
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
    project.load(force=True)
    assert requests()["GET .gz"] == 3


def test_a_month_reads_no_other_and_unchanged_nothing(
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


def test_the_log_says_how_far_a_month_is(
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
            for said in (
                rf"counted \d.* of {size}\n",
                r"loaded [1-9][\d,]* rows of 40,000 rows\n",
                r"exported [1-9][\d,]* rows of 40,000 rows\n",
            ):
                assert re.search(said, caplog.text)
