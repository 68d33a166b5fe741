"""An S3 server by moto on a free port, with a log of its requests and injected faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class S3Server:
    """A running server; `requests` are the (method, path) of those it served.

    `fault`, when set, is a WSGI application that may answer in place of moto, or return None.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fault: (
            Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes] | None] | None
        ) = None
        self._moto: Wsgi = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=_QuietHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Delete all buckets, which moto keeps for all servers of this process."""
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST")).close()

    def client(self) -> Any:
        """Return a client with some credentials; moto checks none."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def _serve(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        answer = self.fault(environ, start_response) if self.fault else None
        return self.serve(environ, start_response) if answer is None else answer

    def serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Return the answer of moto."""
        return self._moto(environ, start_response)


class _QuietHandler(WSGIRequestHandler):
    """A handler without access log, which closes a connection that a fault has broken."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def connection_dropped(self, error: BaseException, environ: object = None) -> None:
        self.close_connection = True
