"""S3 that is busy, breaks off, lies about lengths, drips, refuses, or changes meanwhile."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from werkzeug.datastructures import Headers

from finops_dagster.demo.export import Layout
from finops_dagster_tests.cur import upload
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.servers.s3 import S3Server

Environ = dict[str, Any]
Start = Callable[..., Any]
Fault = Callable[["Bucket", Environ, Start], Iterable[bytes] | None]

# What a run says that cannot go on: it may have ended before the fault was met.
_EITHER = "failed: "


class Bucket:
    """The bucket of a chain, and the faults on the way to it."""

    def __init__(self, server: S3Server, folder: Path, chance: Random) -> None:
        self.server, self.chance, self.name = server, chance, f"acme-billing-{folder.name}"
        self.client = server.client()
        self.client.create_bucket(Bucket=self.name)
        settings = f'source = "s3://{self.name}"\nendpoint_url = "{server.url}"'
        layout = Layout(overwrite=folder.name == "overwritten")
        self.chain = Chain(folder, chance, None, layout, ("2024-01",), settings=settings)
        self.chain.environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        self.must = MustHold(self.chain)

    def deliver(self) -> None:
        """A further version, put as AWS puts it."""
        self.chain.deliver()
        put = self.client.put_object
        upload(self.chain.bucket, lambda key, body: put(Bucket=self.name, Key=key, Body=body))

    def run(self, fault: Fault, times: int) -> tuple[int, str]:
        """Run the chain while the fault is met, so many times, at requests of its own choice."""

        def inject(environ: Environ, start: Start) -> Iterable[bytes] | None:
            nonlocal times
            if not times or self.chance.random() < 0.3:
                return None
            answer = fault(self, environ, start)
            times -= answer is not None
            return answer

        self.server.fault = inject
        try:
            return self.chain.start().end()
        finally:
            self.server.fault = None


def s3(folder: Path, chance: Random) -> Iterator[str]:
    """What a retry can help is retried, what it cannot is told with its reason; never is a month
    half or of two versions."""
    with closing(S3Server()) as server:
        names = ("versioned", "overwritten")
        buckets = [Bucket(server, folder / name, chance) for name in names]
        while True:
            for name, (fault, times, told) in _FAULTS.items():
                for bucket in buckets:
                    bucket.deliver()
                    code, said = bucket.run(fault, times)
                    assert bool(code) is bool(told) or told is _EITHER, f"{name}: {said}"
                    assert code == 0 or (told or "") in said, said
                    bucket.must.whole()
                    bucket.chain.run()
                    bucket.must.settled()
                    yield name


def _answer(status: str, code: str) -> Fault:
    def fault(_: Bucket, environ: Environ, start: Start) -> Iterable[bytes]:
        body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        start(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return fault


def _reset(_: Bucket, environ: Environ, start: Start) -> Iterable[bytes]:
    """Break the connection as a router does that has lost it."""
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


def _body(change: Callable[[bytes, Random], tuple[int, Iterable[bytes]]]) -> Fault:
    """A GET of a file whose body is another: the length that is said, and what comes."""

    def fault(bucket: Bucket, environ: Environ, start: Start) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or not environ["PATH_INFO"].endswith(".gz"):
            return None
        headers = Headers()
        whole = bucket.server.serve(environ, lambda _, given, *rest: headers.extend(given))
        length, body = change(b"".join(whole), bucket.chance)
        headers["Content-Length"] = str(length)
        headers["Connection"] = "close"  # else the client waits for what is missing
        start("200 OK", headers.to_wsgi_list())
        return body

    return fault


def _cut(body: bytes, chance: Random) -> tuple[int, Iterable[bytes]]:
    return len(body), [body[: chance.randrange(len(body))]]


def _shorter(body: bytes, chance: Random) -> tuple[int, Iterable[bytes]]:
    length = chance.randrange(len(body))
    return length, [body[:length]]


def _longer(body: bytes, chance: Random) -> tuple[int, Iterable[bytes]]:
    return len(body) + 7, [body, b"further"]


def _drip(body: bytes, chance: Random) -> tuple[int, Iterable[bytes]]:
    def drops() -> Iterator[bytes]:
        size = len(body) // 20 + 1
        for start in range(0, len(body), size):
            time.sleep(0.05)
            yield body[start : start + size]

    return len(body), drops()


def _restated(bucket: Bucket, environ: Environ, start: Start) -> Iterable[bytes] | None:
    """The vendor writes a newer version before this request is answered."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD") or "list-type" in environ["QUERY_STRING"]:
        return None
    fault, bucket.server.fault = bucket.server.fault, None
    bucket.deliver()
    bucket.server.fault = fault
    return bucket.server.serve(environ, start)


_FAULTS: dict[str, tuple[Fault, int, str | None]] = {
    "503 SlowDown": (_answer("503 Slow Down", "SlowDown"), 3, None),
    "500": (_answer("500 Internal Server Error", "InternalError"), 3, None),
    "reset": (_reset, 3, None),
    "body cut": (_body(_cut), 3, None),
    "too short": (_body(_shorter), 3, None),
    "too long": (_body(_longer), 3, None),
    "slow drip": (_body(_drip), 3, None),
    "credentials expired": (_answer("400 Bad Request", "ExpiredToken"), 10**6, "expired"),
    "clock skewed": (_answer("403 Forbidden", "RequestTimeTooSkewed"), 10**6, "clock"),
    "replaced meanwhile": (_restated, 1, _EITHER),
}
