"""A double of Kubernetes: kmock's API server, and a loop that runs each job's command as a process.

It is no cluster: no image is pulled, there are no limits of memory and disk, and objects are not
validated (the tests validate them by Kubernetes' schema). As in Kubernetes, a pod has only the
job's variables and secrets in its environment, volumes that no other pod sees, and an exit code,
and gets a SIGTERM if its job is deleted.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import kmock

JOBS, PODS, EVENTS = (kmock.resource(name) for name in ("jobs.v1.batch", "pods.v1", "events.v1"))
PID = "finops.test/pid"
CPU = "finops.test/cpu-seconds"
"""The annotation of a pod that has ended with its seconds of CPU."""
_ROOT = Path(__file__).parents[2]
# Only root may mount, or who is root in a namespace of its own.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
_VERBS = ["get", "list", "create", "delete", "watch", "patch"]


def can_isolate() -> bool:
    """Return whether this machine lets a process mount folders that no other process sees."""
    command = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


class Cluster:
    """The server, in a process of its own.

    `secrets` are values by secret and key, `config_maps` are folders with the files of each. The
    log of a job is a file of its name in `logs`.
    """

    def __init__(self, secrets: dict[str, dict[str, str]], config_maps: dict[str, Path]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.logs = Path(self._folder.name)
        folders = {name: str(folder) for name, folder in config_maps.items()}
        options = {"secrets": secrets, "config_maps": folders, "logs": str(self.logs)}
        command = [sys.executable, "-m", __name__, json.dumps(options)]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self._folder.cleanup()

    def kubeconfig(self, file: Path, url: str = "") -> Path:
        """Write the configuration of a client of this server, or of the proxy at `url`."""
        cluster, context = {"server": url or self.url}, {"cluster": "test", "user": "test"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        file.write_text(json.dumps(config))
        return file

    def objects(self, path: str) -> list[dict[str, Any]]:
        """Return the objects below a path of the API, such as `apis/batch/v1/jobs`."""
        with urlopen(f"{self.url}/{path}") as answer:
            items: list[dict[str, Any]] = json.load(answer)["items"]
        return items

    def pods(self, run: str = "") -> list[dict[str, Any]]:
        """Return the pods of a run of Dagster, or of all, also those that ended."""
        query = f"?labelSelector=job-name=dagster-run-{run}" if run else ""
        return self.objects(f"api/v1/pods{query}")

    def signal(self, run: str, number: signal.Signals) -> None:
        """Send a signal to the processes of a run's pod, as a node does, or the kernel."""
        (pod,) = self.pods(run)
        os.killpg(int(pod["metadata"]["annotations"][PID]), number)


class _Kubelet:
    """Makes a pod of each job, and keeps the status of both as long as its process runs."""

    def __init__(self, api: kmock.KubernetesEmulator, options: dict[str, Any]) -> None:
        self.api, self.options = api, options
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            for name in self._running:
                self._terminate(name, signal.SIGKILL)

    async def _run(self) -> None:
        while True:
            for (resource, namespace, name), job in list(self.api.objects.items()):
                if resource != JOBS:
                    continue
                if job.deleted:
                    self._terminate(name)
                elif name not in self._running:
                    self._start(namespace, name, job.raw)
                else:
                    self._end_if_done(namespace, name)
            await asyncio.sleep(0.1)

    def _start(self, namespace: str | None, name: str, job: dict[str, Any]) -> None:
        template = job["spec"]["template"]
        container = template["spec"]["containers"][0]
        command = [*container.get("command", []), *container["args"]]
        mounts = " && ".join([*self._mounts(template["spec"], container), 'exec "$@"'])
        with (Path(self.options["logs"]) / name).open("wb") as log:
            process = self._running[name] = subprocess.Popen(
                [*UNSHARE, "sh", "-c", mounts, "sh", *command],
                env=self._environment(container),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        metadata = {
            "name": f"{name}-0",
            "namespace": namespace,
            "labels": {**template["metadata"].get("labels", {}), "job-name": name},
            "annotations": {PID: str(process.pid)},
        }
        status = {"phase": "Running", "containerStatuses": [_container(running={})]}
        pod = {"metadata": metadata, "spec": template["spec"], "status": status}
        self.api.objects[PODS, namespace, f"{name}-0"] = pod
        self.api.objects[JOBS, namespace, name].patch({"status": {"active": 1}})

    def _mounts(self, pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
        """Yield the commands that mount the pod's volumes."""
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            path, volume = shlex.quote(mount["mountPath"]), volumes[mount["name"]]
            if "emptyDir" in volume:
                yield f"mkdir -p {path} && mount -t tmpfs tmpfs {path}"
                continue
            source = Path(self.options["config_maps"][volume["configMap"]["name"]])
            if "subPath" in mount:
                yield f"touch {path}"
            else:
                yield f"mkdir -p {path}"
            yield f"mount --bind {shlex.quote(str(source / mount.get('subPath', '')))} {path}"

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        secrets = self.options["secrets"]
        environment = {name: os.environ.get(name, "") for name in ("HOME", "PYTHONPATH")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for source in container.get("envFrom", []):
            environment |= secrets.get(source.get("secretRef", {}).get("name"), {})
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            value = secrets[reference["name"]][reference["key"]] if reference else variable["value"]
            environment[variable["name"]] = value
        return environment

    def _end_if_done(self, namespace: str | None, name: str) -> None:
        """Write the status of a job and its pod whose process has ended since the last call."""
        job = self.api.objects[JOBS, namespace, name]
        before = _cpu_of_children()
        code = self._running[name].poll()
        if code is None or not job.raw["status"].get("active"):
            return
        cpu = f"{_cpu_of_children() - before:.2f}"
        result = "succeeded" if code == 0 else "failed"
        condition = {"type": "Complete" if code == 0 else "Failed", "status": "True"}
        job.patch({"status": {"active": None, result: 1, "conditions": [condition]}})
        ended = _container(terminated={"exitCode": code if code >= 0 else 128 - code})
        status = {"phase": result.capitalize(), "containerStatuses": [ended]}
        pod = self.api.objects[PODS, namespace, f"{name}-0"]
        pod.patch({"metadata": {"annotations": {CPU: cpu}}, "status": status})

    def _terminate(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, number)


def _cpu_of_children() -> float:
    """Return the seconds of CPU of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _container(**state: Any) -> dict[str, Any]:
    status = {"name": "dagster", "image": "", "imageID": "", "restartCount": 0}
    return {**status, "ready": "running" in state, "state": state}


async def _serve(options: dict[str, Any]) -> None:
    api = kmock.KubernetesEmulator()
    for resource, kind in ((JOBS, "Job"), (PODS, "Pod"), (EVENTS, "Event")):
        api.resources[resource] = {
            "namespaced": True,
            "kind": kind,
            "singular": kind.lower(),
            "verbs": _VERBS,
            "subresources": ["status"],
        }

    # kmock does not know labelSelector, with which Dagster asks for the pods of one job.
    def pods_of_job(request: kmock.Request) -> dict[str, Any]:
        label, _, value = request.params.get("labelSelector", "").partition("=")
        pods = [pod.raw for (r, *_), pod in api.objects.items() if r == PODS and not pod.deleted]
        chosen = [p for p in pods if not label or p["metadata"]["labels"].get(label) == value]
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": chosen}

    api[kmock.action.LIST, PODS] << pods_of_job
    async with api, kmock.Server(api) as server:
        print(server.url, flush=True)  # noqa: T201
        await _Kubelet(api, options).run()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    asyncio.run(_serve(json.loads(sys.argv[1])))
