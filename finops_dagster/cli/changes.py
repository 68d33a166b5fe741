"""A log of the commands that change state: imports, cleanups, repairs and stopped runs.

They are appended to a file of JSON lines in DAGSTER_HOME, which no command changes or deletes.
What they changed in a stage of a month is an observation in Dagster's event log too.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finops_dagster.cli.output import Headings, Row, key_headings
from finops_dagster.pipeline.observations import StageChange, record_observations
from finops_dagster.settings import dagster_home

_FILE = "finops_changes.jsonl"
_CHANGES_SHOWN = 3


@dataclass
class LoggedChanges:
    """What a command changed: lines of text, and the changes of stages among them."""

    lines: list[str] = field(default_factory=list)
    stages: list[StageChange] = field(default_factory=list)

    def add(self, line: str, stage: StageChange | None = None) -> None:
        """Add a line that says what was changed.

        `stage` is the same change for Dagster's event log; None if no stage was changed.
        """
        self.lines.append(line)
        if stage is not None:
            self.stages.append(stage)


@contextmanager
def logging_changes(command: str) -> Iterator[LoggedChanges]:
    """Give the block `LoggedChanges`; log the command with what the block added to it.

    The log is written after the block, also if it raises, with the time of the block's beginning;
    without changes nothing is written. Changes of stages become observations in Dagster too.
    """
    changes = LoggedChanges()
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    try:
        yield changes
    finally:
        if changes.lines:
            user = {"user": _user(), "host": socket.gethostname()}
            line = json.dumps({"at": at, **user, "command": command, "changes": changes.lines})
            file = dagster_home() / _FILE
            file.parent.mkdir(parents=True, exist_ok=True)
            # One unbuffered write keeps lines whole when several commands end at once.
            with file.open("ab", buffering=0) as log:
                log.write(f"{line}\n".encode())
            if changes.stages:
                record_observations(changes.stages, {"command": command, **user})


def change_rows() -> list[Row]:
    """Return a row for each logged command, newest first: `at`, user, host, command, changes.

    `at` is a time in UTC, and `changes` a list of lines. Empty if no command was logged yet.
    """
    file = dagster_home() / _FILE
    if not file.is_file():
        return []
    changes = [json.loads(line) for line in reversed(file.read_text("utf-8").splitlines())]
    return [{**change, "at": datetime.fromisoformat(change["at"])} for change in changes]


def _user() -> str:
    """Return the name of the process's user; its number if it has no name, as in a container."""
    # Not getpass.getuser: it believes the variables LOGNAME and USER.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _changes_text(row: Row) -> str:
    changes: list[str] = row["changes"]
    more = len(changes) - _CHANGES_SHOWN
    return "; ".join(changes[:_CHANGES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


CHANGE_HEADINGS: Headings = {**key_headings("at user host command"), "changes": _changes_text}
