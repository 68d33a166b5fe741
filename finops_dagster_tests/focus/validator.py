"""The FOCUS foundation's own validator, run as a process on a file of charges.

It is a program for Python 3.12 or 3.13 with an older DuckDB, so it has a virtual environment of its
own (see Makefile). Its exit code is 0 whatever it finds. It reads its list of currencies from the
folder that it is started in, and writes a log there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from finops_dagster_tests.focus.model import Model, corrected

_HOME = Path(__file__).parents[2] / ".venv-focus-validator"
EXECUTABLE = _HOME / "bin/focus-validator"
_MODEL = "model-1.2.0.1.json"
_NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
needs_validator = pytest.mark.skipif(
    not EXECUTABLE.exists(),
    reason="focus-validator is not installed: it needs Python 3.12 or 3.13, see Makefile",
)

_TOTALS = re.compile(r"^Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)$", re.M)
_FAILURE = re.compile(r"^- (\S+): violations=(\d+); ", re.M)


@dataclass(frozen=True)
class Judgment:
    """What the validator says of a file.

    `failures` are the rows that break a rule, by rule. A rule that only says that all of several
    rules hold is left out, as those are there. `checked` counts all rules that were run.
    """

    checked: int
    failures: dict[str, int] = field(default_factory=dict)


def delivered_model() -> Model:
    """Return the model that the validator is installed with."""
    model: Model = json.loads((_installed() / _MODEL).read_text(encoding="utf-8"))
    return model


def judge(charges: Path, folder: Path, model: Model | None = None) -> Judgment:
    """Return what the validator says of a Parquet file of charges; work in a new folder.

    `model` is the corrected one by default. Either all charges of a file have an invoice, or none
    has, or else the model's rules of InvoiceId are broken. So a month that is invoiced in part is
    judged in two parts by them.
    """
    model = model or corrected(delivered_model())
    judgment = _judge(charges, "true", model, folder / "all")
    parts = [part for part in ("InvoiceId IS NULL", "InvoiceId IS NOT NULL") if _has(charges, part)]
    if len(parts) == 1:
        return judgment
    failures = {
        rule: rows for rule, rows in judgment.failures.items() if not rule.startswith("InvoiceId-")
    }
    for number, part in enumerate(parts):
        failures |= _judge(charges, part, model, folder / f"{number}", "InvoiceId-").failures
    return Judgment(judgment.checked, failures)


def _judge(charges: Path, condition: str, model: Model, folder: Path, rules: str = "") -> Judgment:
    _prepare(folder, model)
    _write_rows(charges, condition, folder / "charges.parquet")
    arguments = (
        "--data-file charges.parquet --validate-version 1.2 --rule-set-path rules "
        "--block-download --applicability-criteria ALL"
    ).split()
    arguments += ["--filter-rules", rules] if rules else []
    process = subprocess.run(
        [EXECUTABLE, *arguments],
        cwd=folder,
        env=os.environ | _NO_NETWORK,
        capture_output=True,
        text=True,
        check=False,
    )
    totals = _TOTALS.search(process.stdout)
    assert totals, f"focus-validator reported nothing: {process.stderr[-2000:]}"
    failures = {rule: int(rows) for rule, rows in _FAILURE.findall(process.stdout)}
    _, passed, failed, _ = map(int, totals.groups())
    assert len(failures) == failed, f"{failed} rules failed; of these were read: {failures}"
    return Judgment(passed + failed, _without_summaries(failures, model))


def _prepare(folder: Path, model: Model) -> None:
    """Create what the validator looks for in the folder that it is started in."""
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / _MODEL).write_text(json.dumps(model), encoding="utf-8")
    (folder / "focus_validator/rules").mkdir(parents=True)
    shutil.copy(_installed() / "currency_codes.csv", folder / "focus_validator/rules")


def _installed() -> Path:
    (rules,) = _HOME.glob("lib/python3.*/site-packages/focus_validator/rules")
    return rules


def _write_rows(charges: Path, condition: str, path: Path) -> None:
    """Write charges with their maps as JSON, which the validator knows only as text."""
    with duckdb.connect() as connection:
        rows = connection.read_parquet(str(charges)).filter(condition)
        maps = [name for name, of in zip(rows.columns, rows.types, strict=True) if of.id == "map"]
        values = ", ".join(f'to_json("{name}")::VARCHAR AS "{name}"' for name in maps)
        (rows.project(f"* REPLACE ({values})") if maps else rows).write_parquet(str(path))


def _has(charges: Path, condition: str) -> bool:
    with duckdb.connect() as connection:
        return bool(connection.read_parquet(str(charges)).filter(condition).limit(1).fetchall())


def _without_summaries(failures: dict[str, int], model: Model) -> dict[str, int]:
    """Leave out each rule that says "all of these rules hold", if one of them failed."""

    def is_summary(rule: str) -> bool:
        requirement = model["ModelRules"][rule]["ValidationCriteria"]["Requirement"]
        parts = [item.get("ModelRuleId") for item in requirement.get("Items", [])]
        return requirement.get("CheckFunction") == "AND" and any(part in failures for part in parts)

    return {rule: rows for rule, rows in failures.items() if not is_summary(rule)}
