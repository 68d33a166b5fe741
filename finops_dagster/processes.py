"""The processes that runs are executed in, on this machine, and to whom their files are open."""

from __future__ import annotations

import os
import socket

HOST_TAG, HERE = "finops/host", socket.gethostname()
# What ends a run that a person stopped.
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


def keep_files_private() -> None:
    """Let nobody else read what this process and its children write from now on.

    DuckDB, Dagster and SQLite make files of their own, which no mode at opening would reach; so it
    is the process's umask, and only what is itself started says this: `finops`, the demo, and the
    module that Dagster loads. A folder's default access list (`setfacl -d`) goes before it.
    """
    os.umask(0o077)


def is_alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
