"""Run `finops` in a process of its own, also as `python -m finops_dagster.cli`."""

from __future__ import annotations

import atexit
import os
import sys

from finops_dagster.cli.app import main


def run() -> None:
    """Run the command of `sys.argv` as `main` does, and end the process at once.

    Python's own end would search all of Dagster's modules for garbage, for half a second.
    """
    exit_code: int | None = None

    def end() -> None:
        if exit_code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            return  # Python's own end tries again, and reports it.
        os._exit(exit_code)

    # Called last: functions that the command registers later, such as the deletion of temporary
    # copies of a store's files, are called first.
    atexit.register(end)
    try:
        main()
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else None
        raise


if __name__ == "__main__":
    run()
