"""S3 that is busy, breaks off, lies about lengths, drips, refuses, or changes meanwhile."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
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
_BUCKET = "acme-billing"
_SETTINGS = """
[[exports]]
name = "acme"
vendor = "aws"
source = "s3://{bucket}"
endpoint_url = "{url}"
export_name = "acme-cur"
start_month = "2024-01"
table = "aws_billing_data"
"""


class Bucket:
    """The bucket of a chain, and the faults on the way to it."""

    def __init__(self, server: S3Server, folder: Path, chance: Random, layout: Layout) -> None:
        self.server, self.chance = server, chance
        self.name = f"{_BUCKET}-{folder.name}"
        self.client = server.client()
        self.client.create_bucket(Bucket=self.name)
        settings = _SETTINGS.format(bucket=self.name, url=server.url)
        self.chain = Chain(folder, chance, layout=layout, export=settings, months=("2024-01",))
        self.chain.environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        self.must = MustHold(self.chain)

    def deliver(self) -> None:
        """A further version, put as AWS puts it."""
        self.chain.deliver("2024-01")
        upload(
            self.chain.source,
            lambda key, body: self.client.put_object(Bucket=self.name, Key=key, Body=body),
        )

    def run(self, fault: Fault, times: int) -> tuple[int, str]:
        """Run the chain while the fault is met, so many times, at requests of its own choice."""
        left = times

        def inject(environ: Environ, start: Start) -> Iterable[bytes] | None:
            nonlocal left
            if not left or self.chance.random() < 0.3:
                return None
            answer = fault(self, environ, start)
            left -= answer is not None
            return answer

        self.server.fault = inject
        try:
            return self.chain.start().end()
        finally:
            self.server.fault = None


def s3(folder: Path, chance: Random) -> Iterator[str]:
    """What a retry can help is retried, what it cannot is told with its reason; never is a month
    half or of two versions."""
    server = S3Server()
    try:
        buckets = [
            Bucket(server, folder / name, chance, Layout(overwrite=name == "overwritten"))
            for name in ("versioned", "overwritten")
        ]
        while True:
            for bucket in buckets:
                yield from _every_fault(bucket)
    finally:
        server.close()


def _every_fault(bucket: Bucket) -> Iterator[str]:
    for name, (fault, times, told) in _FAULTS.items():
        bucket.deliver()
        code, said = bucket.run(fault, times)
        assert "Traceback" not in said, said
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
        key = environ["PATH_INFO"].partition(f"{bucket.name}/")[2]
        if environ["REQUEST_METHOD"] != "GET" or not key.endswith(".gz"):
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
