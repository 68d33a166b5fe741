"""What the foundation's validator said of the charges of each mapping, recorded in `reports/`.

A report has the digest of the charges that were judged. So a machine that cannot run the validator
still knows what it says, as long as a mapping makes the same charges of the same bill. To record
the reports again, with Python 3.12 or 3.13:

    RECORD_FOCUS_REPORTS=1 pytest -m thorough finops_dagster_tests/focus/test_conformance.py
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import quoted
from finops_dagster.focus.specification import Specification
from finops_dagster_tests.focus.validator import Judgment

_FOLDER = Path(__file__).parent / "reports"
IS_RECORDING = bool(os.environ.get("RECORD_FOCUS_REPORTS"))


@dataclass(frozen=True)
class Report:
    """What the validator says of charges. `digest` is of all values in FOCUS's columns."""

    digest: str
    charges: int
    checked: int
    failures: dict[str, int]

    @classmethod
    def of(cls, charges: Path, judgment: Judgment) -> Report:
        return cls(*digest_of(charges), judgment.checked, judgment.failures)

    @classmethod
    def read(cls, name: str) -> Report:
        return cls(**json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8")))

    @property
    def judgment(self) -> Judgment:
        return Judgment(self.checked, self.failures)

    def record(self, name: str) -> None:
        _FOLDER.mkdir(exist_ok=True)
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        (_FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def digest_of(charges: Path) -> tuple[str, int]:
    """Return a digest of the charges in a file, whatever their order, and their number."""
    columns = ", ".join(quoted(column.name) for column in Specification.load("1.2").columns)
    with duckdb.connect() as connection:
        rows = connection.read_parquet(str(charges)).project(f"row({columns})::VARCHAR").fetchall()
    digest = hashlib.sha256("\n".join(sorted(row for (row,) in rows)).encode())
    return digest.hexdigest(), len(rows)
