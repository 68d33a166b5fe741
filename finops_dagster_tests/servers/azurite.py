"""Azurite, which stands for Azure Blob Storage, with a log of requests and injected faults."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

_FOLDER = Path(__file__).parents[2] / ".azurite"
_SCRIPT = _FOLDER / "node_modules/azurite/dist/src/blob/main.js"
_OPTIONS = (
    "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck "
    "--disableTelemetry --silent".split()
)
# The account that every Azurite has, and its public key.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

Answer = tuple[int, Mapping[str, str], bytes]


class Azurite:
    """A process of Azurite, which keeps blobs in memory; `options` are further ones of its own."""

    def __init__(self, *options: str) -> None:
        node = shutil.which("node", path=f"{_FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}")
        if not node or not _SCRIPT.is_file():
            pytest.fail(f"{_SCRIPT} or node is missing; make test installs them", pytrace=False)
        self._process = subprocess.Popen(
            [node, _SCRIPT, *_OPTIONS, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout
        started = (re.search(r"listens on (\S+):(\d+)", line) for line in self._process.stdout)
        match = next(filter(None, started))
        self.url, self.port = f"{match[1]}:{match[2]}", int(match[2])
        Thread(target=self._process.stdout.read, daemon=True).start()

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


class AzureServer:
    """A server that passes requests on to Azurite; `requests` are the (method, path) of them.

    `fault`, when set, is called with the method, the path and the headers of a request: it may
    answer in place of Azurite, or return None. `more_query` is added to what the client asks for.
    """

    def __init__(self) -> None:
        self._azurite = Azurite()
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str, Mapping[str, str]], Answer | None] | None = None
        self.more_query = ""
        handler = type("_BoundHandler", (_Handler,), {"azure": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/{ACCOUNT}"
        Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def connection_string(self) -> str:
        return f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"

    def container(self, name: str) -> ContainerClient:
        """Return a client of Azurite itself, whose requests are not in the log."""
        direct = self.connection_string.replace(self.url, f"{self._azurite.url}/{ACCOUNT}")
        return BlobServiceClient.from_connection_string(direct).get_container_client(name)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._azurite.close()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        self.requests.append((method, path))
        if self.fault and (answer := self.fault(method, path, headers)):
            return answer
        connection = HTTPConnection("127.0.0.1", self._azurite.port)
        try:
            connection.request(method, path + self.more_query, body, dict(headers))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    azure: AzureServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, answer = self.azure.answer(self.command, self.path, self.headers, body)
        self.send_response(status, headers.get("reason"))
        for name, value in {"content-length": str(len(answer)), **headers}.items():
            if name not in ("connection", "keep-alive", "reason", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
            # An answer that a fault has cut short ends with its connection.
            self.close_connection = len(answer) < int(headers.get("content-length", 0))

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass
