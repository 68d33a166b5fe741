"""At which addresses a process lets others call it."""

from __future__ import annotations

import psutil


def addresses(process: int) -> set[str]:
    """Those of the process and of all that it started."""
    root = psutil.Process(process)
    sockets = [
        socket
        for each in (root, *root.children(recursive=True))
        for socket in each.net_connections("inet")
    ]
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
