"""Who changed state with a command of their own, when, and what: one line of JSON for each.

Runs are in Dagster's event log. Imports, cleanups, repairs and stops are not, or without a person's
name; they are appended to a file in DAGSTER_HOME that no command changes or deletes.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from finops_dagster.cli.output import Headings, Row, key_headings
from finops_dagster.settings import dagster_home

FILE = "finops_changes.jsonl"


@contextmanager
def recorded(command: str) -> Iterator[list[str]]:
    """Record the command with what is put into the list, also where it ends in an error; nothing
    where nothing was changed."""
    changes: list[str] = []
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    try:
        yield changes
    finally:
        if changes:
            who = {"user": _user(), "host": socket.gethostname()}
            line = json.dumps({"at": at, **who, "command": command, "changes": changes})
            file = dagster_home() / FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            # In one write, so that commands that end at once leave whole lines.
            with file.open("ab", buffering=0) as opened:
                opened.write(f"{line}\n".encode())


def recorded_changes() -> list[Row]:
    """Return what was recorded, the newest first."""
    file = dagster_home() / FILE
    if not file.is_file():
        return []
    changes = [json.loads(line) for line in reversed(file.read_text("utf-8").splitlines())]
    return [{**change, "at": datetime.fromisoformat(change["at"])} for change in changes]


def _user() -> str:
    """Return the name of the process's user, which no environment variable can change, or the
    number where the machine has no name for it, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _first_changes(row: Row) -> str:
    changes: list[str] = row["changes"]
    more = len(changes) - 3
    return "; ".join(changes[:3]) + (f"; and {more} more" if more > 0 else "")


HEADINGS: Headings = {**key_headings("at user host command"), "changes": _first_changes}
