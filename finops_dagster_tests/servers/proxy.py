"""A server that passes requests on to another one, with a log of them and injected faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]


class Proxy:
    """A proxy of the server at `port`; `requests` has (method, path) of each request.

    `fault`, if set, is called with the method, the path and the headers of a request: it may return
    an answer in place of the server's (status, headers, body), or None. `damage`, if set, is called
    with the body of each request, and returns the body for the server. `more_query` is appended to
    the path of each request for the server: `&maxresults=2`.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str, Mapping[str, str]], Answer | None] | None = None
        self.damage: Callable[[bytes], bytes] | None = None
        self.more_query = ""
        handler = type("_BoundHandler", (_Handler,), {"proxy": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reset(self) -> None:
        """Unset `fault`, `damage` and `more_query`; the log of requests stays."""
        self.fault, self.damage, self.more_query = None, None, ""

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Record a request, and return the answer of `fault`, or else of the server."""
        self.requests.append((method, path))
        if self.fault and (answer := self.fault(method, path, headers)):
            return answer
        connection = HTTPConnection("127.0.0.1", self.port)
        try:
            body = self.damage(body) if self.damage else body
            connection.request(method, path + self.more_query, body, dict(headers))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    # Else the body, sent after the headers, waits 40 ms for the client to acknowledge those.
    disable_nagle_algorithm = True
    proxy: Proxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, answer = self.proxy.answer(self.command, self.path, self.headers, body)
        self.send_response(status, headers.get("reason"))
        for name, value in {"content-length": str(len(answer)), **headers}.items():
            if name not in ("connection", "keep-alive", "reason", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
            # An answer that a fault has cut short ends with its connection.
            self.close_connection = len(answer) < int(headers.get("content-length", 0))

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass
