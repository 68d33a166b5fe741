"""Prometheus, from Debian's package, which scrapes one address."""

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.project import ROOT

RULES = ROOT / "deploy/grafana/alert-rules.yaml"
NEEDED = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed: apt-get install prometheus",
)
_CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: finops, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Prometheus:
    """A server with the project's alert rules; it has scraped the port once the block begins."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        config = folder / "prometheus.yml"
        config.write_text(_CONFIG.format(rules=RULES, port=port))
        own_port = free_port()
        self.url = f"http://127.0.0.1:{own_port}"
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{own_port}"], stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
            with attempt:
                assert [sample["value"][1] for sample in self.query("up")] == ["1"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        with urlopen(f"{self.url}/api/v1/query?query={quote(expression)}") as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        result: list[dict[str, Any]] = document["data"]["result"]
        return result
