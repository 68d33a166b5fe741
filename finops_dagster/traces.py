"""Unexpected errors: a message of one line, and the full trace in a file."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path

from finops_dagster.billing.errors import first_line

_MOST_BYTES = 1_000_000


def record_unexpected_error(error: BaseException, home: Path) -> str:
    """Append an error's trace to `finops_errors.log` in `home`, and return a message of one line.

    The message names the file, and says so if it cannot be written. A log of more than a megabyte
    becomes `finops_errors.log.1` first, which replaces an older one. `home` is DAGSTER_HOME.
    """
    message = ": ".join(filter(None, [type(error).__name__, first_line(error)]))
    path = home / "finops_errors.log"
    trace = "".join(traceback.format_exception(error))
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Two files at most, so that the log does not fill the disk.
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{trace}\n")
    except OSError as log_error:  # a full disk must not hide the first error
        return (
            f"{message} (unexpected error: report it; its trace cannot be written to {path}: "
            f"{log_error.strerror})"
        )
    return f"{message} (unexpected error: report it, with the trace at the end of {path})"
