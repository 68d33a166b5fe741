"""S3 that is busy, breaks off, lies about lengths, drips, refuses, or changes meanwhile."""

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
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.servers.s3 import S3Server


@dataclass(frozen=True)
class Request:
    """A request that a fault may answer in the server's stead."""

    server: S3Server
    chain: Chain
    environ: dict[str, Any]
    start: Callable[..., Any]

    def is_of(self, *methods: str) -> bool:
        """Whether it asks by one of these methods."""
        return self.environ["REQUEST_METHOD"] in methods


Answer = Iterable[bytes] | None
# What a run says that cannot go on: it may have ended before the fault was met.
_EITHER = "failed: "
_ALWAYS = 10**6


def s3(folder: Path, chance: Random) -> Iterator[str]:
    """What a retry can help is retried, what it cannot is told with its reason; never is a month
    half or of two versions."""
    with closing(S3Server()) as server:
        chains = [_chain(server, folder, chance, overwrite=each) for each in (False, True)]
        while True:
            for name, (fault, times, reason) in _FAULTS.items():
                for chain in chains:
                    chain.deliver()
                    with _injected(server, chain, fault, times):
                        code, output = chain.start().end()
                    assert bool(code) is bool(reason) or reason is _EITHER, f"{name}: {output}"
                    assert code == 0 or (reason or "") in output, output
                    chain.whole()
                    chain.run_and_settle()
                    yield name


def _chain(server: S3Server, folder: Path, chance: Random, *, overwrite: bool) -> Chain:
    client, bucket = server.client(), f"acme-{'overwritten' if overwrite else 'versioned'}"
    client.create_bucket(Bucket=bucket)
    return Chain(
        folder / bucket,
        chance,
        layout=Layout(overwrite=overwrite),
        months=("2024-01",),
        location=f'source = "s3://{bucket}"\nendpoint_url = "{server.url}"\n',
        put=lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        environment={"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )


@contextmanager
def _injected(
    server: S3Server, chain: Chain, fault: Callable[[Request], Answer], times: int
) -> Iterator[None]:
    """The fault is met so many times, at requests of its own choice."""

    def inject(environ: dict[str, Any], start: Callable[..., Any]) -> Answer:
        nonlocal times
        if not times or chain.chance.random() < 0.3:
            return None
        times -= 1  # before a fault that ends in an exception
        answer = fault(Request(server, chain, environ, start))
        times += answer is None
        return answer

    server.fault = inject
    try:
        yield
    finally:
        server.fault = None


def _error(status: str, code: str) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        length = ("Content-Length", str(len(body)))
        request.start(status, [length, ("Content-Type", "application/xml")])
        return [] if request.is_of("HEAD") else [body]

    return answer


def _reset(request: Request) -> Answer:
    """Break the connection as a router does that has lost it."""
    connection = request.environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def _body(
    change: Callable[[bytes, int], tuple[int, Iterable[bytes]]],
) -> Callable[[Request], Answer]:
    """A GET of a file whose body is another: the length that is said, and what comes, of the whole
    and a place in it."""

    def answer(request: Request) -> Answer:
        if not request.is_of("GET") or not request.environ["PATH_INFO"].endswith(".gz"):
            return None
        headers = Headers()
        whole = b"".join(
            request.server.serve(request.environ, lambda _, given, *rest: headers.extend(given))
        )
        length, body = change(whole, request.chain.chance.randrange(len(whole)))
        headers["Content-Length"] = str(length)
        headers["Connection"] = "close"  # else the client waits for what is missing
        request.start("200 OK", headers.to_wsgi_list())
        return body

    return answer


def _drip(body: bytes) -> Iterator[bytes]:
    size = len(body) // 20 + 1
    for start in range(0, len(body), size):
        time.sleep(0.05)
        yield body[start : start + size]


def _restate(request: Request) -> Answer:
    """The vendor writes a newer version before this request is answered."""
    if not request.is_of("GET", "HEAD") or "list-type" in request.environ["QUERY_STRING"]:
        return None
    fault, request.server.fault = request.server.fault, None
    request.chain.deliver()
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
    "replaced meanwhile": (_restate, 1, _EITHER),
}
