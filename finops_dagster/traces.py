"""Errors that nobody foresaw: one line for people, and the full trace in a file that it names."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path

from finops_dagster.billing.errors import first_line

_BYTES_KEPT = 1_000_000


def record_unexpected_error(error: BaseException, home: Path) -> str:
    """Return an error's type and text in one line, and append its trace to `finops_errors.log` in
    DAGSTER_HOME; a large one becomes `.1`, so that the disk does not fill up."""
    message = ": ".join(filter(None, [type(error).__name__, first_line(error)]))
    path = home / "finops_errors.log"
    trace = "".join(traceback.format_exception(error))
    try:
        home.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _BYTES_KEPT:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{trace}\n")
    except OSError as problem:
        return f"{message} (unforeseen; its trace cannot be kept in {path}: {problem.strerror})"
    return f"{message} (unforeseen; the full trace is at the end of {path})"
