"""SeaweedFS on free ports: a store of S3, and the REST catalog of Iceberg tables that it has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

BUCKET, WAREHOUSE = "lake", "tables"
ACCESS_KEY, SECRET_KEY = "test", "correct-horse-battery"

_EXECUTABLE = Path(__file__).parents[2] / ".venv-iceberg/bin/weed"
_PORTS = """master.port master.port.grpc volume.port volume.port.grpc filer.port filer.port.grpc
    admin.port admin.port.grpc s3.port s3.port.grpc s3.port.iceberg""".split()
_OPTIONS = {
    "ip": "127.0.0.1",
    "ip.bind": "127.0.0.1",
    "bucket": BUCKET,
    "tableBucket": WAREHOUSE,
    "admin.ui": "false",
    "webdav": "false",
    "s3.port.lance": "0",
    "master.telemetry": "false",
}


@dataclass(frozen=True)
class SeaweedServer:
    """A running server."""

    s3_url: str
    catalog_url: str

    def token(self) -> str:
        """Exchange the keys for a token of the catalog."""
        form = {
            "grant_type": "client_credentials",
            "client_id": ACCESS_KEY,
            "client_secret": SECRET_KEY,
        }
        url = f"{self.catalog_url}/v1/oauth/tokens"
        with urlopen(url, urlencode(form).encode()) as response:
            return str(json.load(response)["access_token"])


@contextmanager
def seaweed_server() -> Iterator[SeaweedServer]:
    """Run a server until the end of the block; skip the test where it is not installed."""
    if not _EXECUTABLE.exists():
        pytest.skip("SeaweedFS is not installed: make thorough does it, on Linux")
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        options = _OPTIONS | ports | {"dir": folder, "filer.localSocket": f"{folder}/filer"}
        server = subprocess.Popen(
            [_EXECUTABLE, "mini", *(f"-{name}={value}" for name, value in options.items())],
            env={
                **os.environ,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            },
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout
        is_running = any("Press Ctrl+C" in line for line in server.stdout)
        Thread(target=server.stdout.read, daemon=True).start()
        try:
            assert is_running, "SeaweedFS did not start"
            url = "http://127.0.0.1:{}".format
            yield SeaweedServer(url(ports["s3.port"]), url(ports["s3.port.iceberg"]))
        finally:
            server.kill()
            server.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
