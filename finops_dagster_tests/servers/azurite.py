"""Azurite, which stands for Azure Blob Storage, with a log of requests and injected faults."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from threading import Thread

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from finops_dagster_tests.servers.proxy import Proxy

_FOLDER = Path(__file__).parents[2] / ".azurite"
_SCRIPT = _FOLDER / "node_modules/azurite/dist/src/blob/main.js"
_OPTIONS = (
    "--blobHost 127.0.0.1 --blobPort 0 --inMemoryPersistence --skipApiVersionCheck "
    "--disableTelemetry --silent".split()
)
# The account that every Azurite has, and its public key.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


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


class AzureServer(Proxy):
    """A process of Azurite behind a proxy, whose address is `url`."""

    def __init__(self) -> None:
        self._azurite = Azurite()
        super().__init__(self._azurite.port)
        self.url += f"/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"

    def container(self, name: str) -> ContainerClient:
        """Return a client of Azurite itself, whose requests are not in the log."""
        direct = self.connection_string.replace(self.url, f"{self._azurite.url}/{ACCOUNT}")
        return BlobServiceClient.from_connection_string(direct).get_container_client(name)

    def close(self) -> None:
        super().close()
        self._azurite.close()
