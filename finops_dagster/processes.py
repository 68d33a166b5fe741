"""The processes that runs are executed in, on this machine."""

from __future__ import annotations

import os
import socket

HOST_TAG, HERE = "finops/host", socket.gethostname()
# What ends a run that a person stopped.
INTERRUPTS = ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


def is_alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
