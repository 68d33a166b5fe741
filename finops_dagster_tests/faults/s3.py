"""Faults of S3: busy, broken off, wrong lengths, slow, refused, or changed during a run."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from werkzeug.datastructures import Headers

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.project import FaultProject
from finops_dagster_tests.servers.s3 import S3Server


@dataclass(frozen=True)
class Request:
    """A request that a fault may answer in place of the server."""

    server: S3Server
    project: FaultProject
    environ: dict[str, Any]
    start: Callable[..., Any]

    def has_method(self, *methods: str) -> bool:
        return self.environ["REQUEST_METHOD"] in methods


Answer = Iterable[bytes] | None
# The error of a run that fails; a run that ended before the fault has none.
_EITHER = "failed: "
_ALWAYS = 10**6


def s3(folder: Path, random: Random) -> Iterator[str]:
    """Inject each fault of S3 into a run.

    A transient error is tried again, a permanent one fails with its reason. No month is ever partly
    loaded or of two versions.
    """
    with closing(S3Server()) as server:
        projects = [
            _project(server, folder, random, overwrite=overwrite) for overwrite in (False, True)
        ]
        while True:
            for name, (fault, times, reason) in _FAULTS.items():
                for project in projects:
                    project.deliver()
                    with _injected(server, project, fault, times):
                        code, output = project.start().end()
                    assert bool(code) is bool(reason) or reason is _EITHER, f"{name}: {output}"
                    assert code == 0 or (reason or "") in output, output
                    project.assert_whole()
                    project.recover()
                    yield name


def _project(server: S3Server, folder: Path, random: Random, *, overwrite: bool) -> FaultProject:
    client, bucket = server.client(), f"acme-{'overwritten' if overwrite else 'versioned'}"
    client.create_bucket(Bucket=bucket)
    return FaultProject(
        folder / bucket,
        random,
        layout=Layout(overwrite=overwrite),
        months=("2024-01",),
        location=f'source = "s3://{bucket}"\nendpoint_url = "{server.url}"\n',
        put=lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        environment={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )


@contextmanager
def _injected(
    server: S3Server, project: FaultProject, fault: Callable[[Request], Answer], times: int
) -> Iterator[None]:
    """Inject the fault this many times, at random requests that it applies to."""

    def inject(environ: dict[str, Any], start: Callable[..., Any]) -> Answer:
        nonlocal times
        if not times or project.random.random() < 0.3:
            return None
        times -= 1  # before a fault that ends in an exception
        answer = fault(Request(server, project, environ, start))
        times += answer is None
        return answer

    server.fault = inject
    try:
        yield
    finally:
        server.fault = None


def _error(status: str, code: str) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        length = ("Content-Length", str(len(body)))
        request.start(status, [length, ("Content-Type", "application/xml")])
        return [] if request.has_method("HEAD") else [body]

    return answer


def _reset(request: Request) -> Answer:
    """Reset the connection, as a router does that has lost it."""
    connection = request.environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def _body(
    change: Callable[[bytes, int], tuple[int, Iterable[bytes]]],
) -> Callable[[Request], Answer]:
    """Return a fault that answers a GET of a file with another body.

    `change` takes the body and a position in it, and returns the Content-Length and the bytes sent.
    """

    def answer(request: Request) -> Answer:
        if not request.has_method("GET") or not request.environ["PATH_INFO"].endswith(".gz"):
            return None
        headers = Headers()
        body = b"".join(
            request.server.serve(request.environ, lambda _, items, *rest: headers.extend(items))
        )
        length, sent = change(body, request.project.random.randrange(len(body)))
        headers["Content-Length"] = str(length)
        headers["Connection"] = "close"  # else the client waits for what is missing
        request.start("200 OK", headers.to_wsgi_list())
        return sent

    return answer


def _drip(body: bytes) -> Iterator[bytes]:
    size = len(body) // 20 + 1
    for start in range(0, len(body), size):
        time.sleep(0.05)
        yield body[start : start + size]


def _restate(request: Request) -> Answer:
    """Deliver a newer version before this request is answered."""
    if not request.has_method("GET", "HEAD") or "list-type" in request.environ["QUERY_STRING"]:
        return None
    fault, request.server.fault = request.server.fault, None
    request.project.deliver()
    request.server.fault = fault
    return request.server.serve(request.environ, request.start)


_FAULTS: dict[str, tuple[Callable[[Request], Answer], int, str | None]] = {
    "503 SlowDown": (_error("503 Slow Down", "SlowDown"), 3, None),
    "500": (_error("500 Internal Server Error", "InternalError"), 3, None),
    "reset": (_reset, 3, None),
    "body cut": (_body(lambda body, at: (len(body), [body[:at]])), 3, None),
    "too short": (_body(lambda body, at: (at, [body[:at]])), 3, None),
    "too long": (_body(lambda body, _: (len(body) + 7, [body, b"further"])), 3, None),
    "slow drip": (_body(lambda body, _: (len(body), _drip(body))), 3, None),
    "credentials expired": (_error("400 Bad Request", "ExpiredToken"), _ALWAYS, "expired"),
    "clock skewed": (_error("403 Forbidden", "RequestTimeTooSkewed"), _ALWAYS, "clock"),
    "replaced during a run": (_restate, 1, _EITHER),
}
TRANSIENT = [fault for fault, _, reason in _FAULTS.values() if reason is None]
"""The faults that a later try does not have."""
