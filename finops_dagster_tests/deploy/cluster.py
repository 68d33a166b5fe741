"""Dagster on Kubernetes as deploy/dagster.yaml says it, with processes for pods."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import dagster as dg
import yaml
from tenacity import Retrying, stop_after_delay, wait_fixed

from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.project import ROOT
from finops_dagster_tests.servers.kubernetes import Cluster
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.servers.proxy import Proxy
from finops_dagster_tests.servers.s3 import S3Server

BIN = Path(sys.executable).parent
SECRETS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "hunter2"}
LOGS = "acme-dagster-logs"


@dataclass
class Deployment:
    """A running deployment: its servers, and a home of its own as on a laptop.

    Dagster reaches the cluster through the proxy `api`.
    """

    cluster: Cluster
    api: Proxy
    postgresql: PostgreSQLServer
    folder: Path
    environment: dict[str, str]

    def finops(self, *arguments: str) -> str:
        """Run `finops` with the history and the lake of the pods, and return its output."""
        home = self.folder / "laptop"
        return subprocess.run(
            [*FINOPS, *arguments],
            cwd=home,
            env={**self.environment, "DAGSTER_HOME": str(home)},
            text=True,
            check=True,
            capture_output=True,
        ).stdout

    def launch(self, export: str, month: str) -> None:
        """Launch a run of an export's month.

        It is no backfill: once that is over, Dagster starts no run of it again whose pod was lost.
        """
        job = f"{export.replace('-', '_')}_month"  # of workspace.yaml
        tags = json.dumps({"dagster/partition": month})
        subprocess.run(
            [BIN / "dagster", "job", "launch", "--job", job, "--tags", tags],
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
        )

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open Dagster's instance in this process, with the history of the pods."""
        with patch.dict(os.environ, self.environment):
            yield dg.DagsterInstance.from_config(str(self.folder / "laptop"))

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the rows that a command of `finops` shows."""
        rows: list[dict[str, Any]] = json.loads(self.finops(*arguments, "--json"))
        return rows


def attempts(seconds: float = 120) -> Retrying:
    """Return an iterable of attempts, one each half second, as tenacity has them.

    After `seconds`, the error of the last attempt is raised.
    """
    return Retrying(stop=stop_after_delay(seconds), wait=wait_fixed(0.5), reraise=True)


@contextmanager
def deployed(folder: Path, settings: str, s3: S3Server, *, pods: int = 2) -> Iterator[Deployment]:
    """Run code server and daemon until the block ends, with at most this many pods at a time.

    The settings are those of every pod.
    """
    maps = {name: folder / name for name in ("finops-settings", "dagster-instance")}
    for directory in (*maps.values(), folder / "home", folder / "laptop"):
        directory.mkdir()
    (maps["finops-settings"] / "finops.toml").write_text(settings)
    s3.client().create_bucket(Bucket=LOGS)
    secrets = {"finops-secrets": SECRETS, "dagster-postgresql-secret": {"postgresql-password": "x"}}
    with ExitStack() as stack:
        postgresql = stack.enter_context(PostgreSQLServer())
        cluster = stack.enter_context(Cluster(secrets, maps))
        api = stack.enter_context(closing(Proxy(urlsplit(cluster.url).port or 0)))
        instance = instance_config(folder, postgresql, s3)
        instance["concurrency"]["runs"]["max_concurrent_runs"] = pods
        kubeconfig = cluster.kubeconfig(folder / "kubeconfig", api.url)
        instance["run_launcher"]["config"] |= {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
        }
        for home in (maps["dagster-instance"], folder / "home", folder / "laptop"):
            (home / "dagster.yaml").write_text(yaml.safe_dump(instance))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "workspace.yaml").write_text(
            f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}}}}}]\n"
        )
        environment = {
            **os.environ,
            **SECRETS,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "DAGSTER_CURRENT_IMAGE": "registry.example.com/finops-dagster:test",
            "DAGSTER_HOME": str(folder / "home"),
            "DAGSTER_PG_HOST": "postgresql",
            "DAGSTER_PG_USERNAME": "postgres",
            "DAGSTER_PG_PASSWORD": "x",
            "DAGSTER_PG_DB": "postgres",
            "FINOPS_CONFIG": str(maps["finops-settings"] / "finops.toml"),
            "FINOPS_LOG_BUCKET": LOGS,
        }
        server = f"code-server start --host 127.0.0.1 --port {port} -m finops_dagster.definitions"
        stack.enter_context(_process(folder, environment, "dagster", *server.split()))
        daemon = f"run --workspace {folder / 'workspace.yaml'}"
        stack.enter_context(_process(folder, environment, "dagster-daemon", *daemon.split()))
        yield Deployment(cluster, api, postgresql, folder, environment)


def instance_config(folder: Path, postgresql: PostgreSQLServer, s3: S3Server) -> dict[str, Any]:
    """Return deploy/dagster.yaml with the addresses and paths of a test."""
    text = (ROOT / "deploy/dagster.yaml").read_text()
    for path in ("/opt/dagster/dagster_home", "/scratch", "/etc/finops"):
        text = text.replace(path, str(folder / "pod" / Path(path).name))
    config: dict[str, Any] = yaml.safe_load(text)
    config["storage"]["postgres"]["postgres_db"]["params"] = {"host": postgresql.host}
    config["compute_logs"]["config"] |= {"endpoint_url": s3.url, "use_ssl": False}
    config["run_coordinator"]["config"] = {"dequeue_interval_seconds": 1}
    config["run_monitoring"]["poll_interval_seconds"] = 1
    return config


@contextmanager
def _process(folder: Path, environment: Mapping[str, str], *command: str) -> Iterator[None]:
    """Run a program of the environment until the block ends, with its output in a file."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            # Dagster takes SIGTERM for SIGINT, which a shell's background processes ignore.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
