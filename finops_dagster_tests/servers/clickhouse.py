"""ClickHouse's reader of Iceberg, in chDB: a process without a server, which knows no pyiceberg."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

_PYTHON = Path(__file__).parents[2] / ".venv-iceberg/bin/python"
_QUERY = """
import sys
from chdb.session import Session
session = Session()
for statement in sys.argv[1:]:
    rows = session.query(statement, "JSONEachRow")
print(rows)
"""
_EXACT = "SET output_format_json_quote_decimals = 1"


def rows_of(*statements: str) -> list[dict[str, Any]]:
    """Run statements, and return the rows of the last one, with decimals as texts.

    Skips the test where chDB is not installed.
    """
    if not any(_PYTHON.parents[1].glob("lib/*/site-packages/chdb")):
        pytest.skip("chDB is not installed: make thorough does it, unless on Linux on ARM")
    command = [_PYTHON, "-c", _QUERY, _EXACT, *statements]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines() if line]
