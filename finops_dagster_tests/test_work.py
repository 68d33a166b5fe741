"""How much work a month is, as DuckDB's own log counts it: what does not vary with the machine."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.filesize import decimal
from tenacity import Retrying, stop_after_attempt

from finops_dagster_tests.cur import csv_bytes, deliver, line_item
from finops_dagster_tests.project import Project


@dataclass
class Work:
    """The statements that DuckDB ran, and the bytes that it read of each file."""

    statements: list[str] = field(default_factory=list)
    read: Counter[Path] = field(default_factory=Counter)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Work]:
    """What was done since it was last asked."""
    connect, logs, numbers = duckdb.connect, tmp_path / "logs", count()
    logs.mkdir()

    def logged(*arguments: Any, **options: Any) -> duckdb.DuckDBPyConnection:
        connection = connect(*arguments, **options)
        connection.execute(
            "CALL enable_logging(['QueryLog', 'FileSystem'], storage = 'file', "
            f"storage_config = {{'path': '{logs / f'{next(numbers):04}'}'}})"
        )
        return connection

    def since() -> Work:
        work = Work()
        for path in sorted(logs.glob("*/duckdb_log_entries.csv")):
            with path.open(newline="") as file:
                for entry in csv.DictReader(file):
                    if entry["type"] == "QueryLog":
                        work.statements.append(entry["message"])
                    elif (did := json.loads(entry["message"]))["op"] == "READ":
                        work.read[Path(did["path"]).absolute()] += int(did["bytes"])
            path.unlink()
        return work

    monkeypatch.setattr(duckdb, "connect", logged)
    return since


def parts(month: str, number: int, rows: int) -> list[bytes]:
    """Gzip files that stay large, as no two of their rows are alike."""
    chance = random.Random(month)
    return [
        gzip.compress(
            csv_bytes(
                line_item(month, lineItem__LineItemDescription=chance.randbytes(200).hex())
                for _ in range(rows)
            )
        )
        for _ in range(number)
    ]


def test_each_staged_file_is_read_to_be_counted_and_to_be_loaded(
    project: Project, work: Callable[[], Work]
) -> None:
    deliver(project.put, "2024-01", parts("2024-01", 3, 4000))
    project.load("2024-01")
    staged = list((project.folder / "data/staging").rglob("*.csv.gz"))
    read = work().read
    assert len(staged) == 3
    assert {path: read[path] for path in staged} == {
        path: 2 * path.stat().st_size for path in staged
    }


def test_an_unchanged_month_scans_nothing(project: Project, work: Callable[[], Work]) -> None:
    deliver(project.put, "2024-01", parts("2024-01", 2, 4000))
    project.load("2024-01")
    first = work().statements
    project.load("2024-01")
    again = work()
    assert not [path for path in again.read if path.suffix in (".gz", ".parquet")]
    assert len(again.statements) < len(first) / 2


def test_parts_rows_and_months_before_take_no_further_statement(
    project: Project, work: Callable[[], Work]
) -> None:
    statements = []
    for month, number, rows in (("2024-01", 1, 10), ("2024-02", 1, 10), ("2024-03", 9, 100)):
        deliver(project.put, month, parts(month, number, rows))
        project.load(month)
        statements.append([said[:30] for said in work().statements])
    _, second, third = statements
    assert third == second
    for once in ("SELECT count(*), sum(cost)", 'INSERT INTO "aws_billing_data', "COPY (FROM"):
        assert len([said for said in third if said.startswith(once)]) == 1


def test_the_log_says_how_far_a_month_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("finops_dagster.progress._SECONDS_BETWEEN_REPORTS", 0.001)
    project.database = {"duckdb": {"threads": 1}}
    files = parts("2024-01", 2, 20_000)
    deliver(project.put, "2024-01", files)
    size = re.escape(decimal(sum(map(len, files))))
    # A statement may end before it is first asked how far it is.
    for attempt in Retrying(stop=stop_after_attempt(30), reraise=True):
        with attempt:
            project.load("2024-01", force=True)
            assert re.search(rf"counted \d.* of {size}\n", caplog.text)
            assert re.search(r"loaded [1-9][\d,]* rows of 40,000 rows\n", caplog.text)
            assert re.search(r"exported [1-9][\d,]* rows of 40,000 rows\n", caplog.text)
