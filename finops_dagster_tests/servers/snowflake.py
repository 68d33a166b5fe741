"""A Snowflake server for tests: fakesnow, behind a server that adds what fakesnow lacks.

fakesnow lets every user in, and fails two transactions that touch one table, where in Snowflake the
second waits. So this server

- knows one account, user, warehouse and database, a password, and a public key;
- lets one transaction be open at a time; others wait before they begin;
- ends the session of a disconnected client, and its transaction, at once; Snowflake takes 5 minutes
  where another transaction waits;
- reads hexadecimal numbers, which TO_NUMBER of fakesnow cannot;
- answers what fakesnow cannot do as an error of the statement, where fakesnow breaks down;
- records the statements that it receives, and fails those that a test selects.

Where fakesnow differs from Snowflake, as far as the project is concerned: it calls an OBJECT
VARIANT; SUM of a column adds doubles, of a cast to NUMBER it does not; a NULL time reads as 1970;
FLATTEN gives the whole map for the key '', and makes doubles of amounts; CLUSTER BY, COPY GRANTS,
QUERY_TAG, LOCK_TIMEOUT and the options of a Parquet file format are read and ignored; there are no
roles and no rights; a temporary stage outlives its session.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

ACCOUNT, USER, PASSWORD = "acme-finops", "loader", "correct-horse-battery"
WAREHOUSE, DATABASE = "loading", "finops"

_EXECUTABLE = Path(__file__).parents[2] / ".venv-fakesnow/bin/fakesnow"
_TOKEN = re.compile(r'Snowflake Token="([^"]+)"')
_HEXADECIMAL = re.compile(r"TO_NUMBER\((SUBSTR\(MD5\(.*?\), 1, \d+\)), 'X+'\)")
Answer = tuple[int, bytes]


@dataclass
class SnowflakeServer:
    """A running server; `statements` and `logins` are those received, `public_key` is PEM."""

    fakesnow_port: int
    statements: list[str] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    public_key: str = ""

    def __post_init__(self) -> None:
        self._faults: list[tuple[str, Answer]] = []
        self._one_statement = Lock()
        self._one_transaction = Lock()
        self._owner: str | None = None
        self._connections: Counter[str] = Counter()
        self._open: set[str] = set()
        server = self

        class Handler(_Handler):
            snowflake = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the server in front of fakesnow."""
        self._http.shutdown()
        self._http.server_close()

    def fail_next(self, part: str, number: int, sqlstate: str, message: str) -> None:
        """Answer the next statement that contains `part` with an error of Snowflake."""
        self._faults.append((part, _refused(number, sqlstate, message)))

    def unavailable_next(self, part: str) -> None:
        """Answer the next statement that contains `part` with HTTP 503."""
        self._faults.append((part, (503, b"{}")))

    def forget(self) -> None:
        """Forget all statements, logins and faults."""
        self._faults.clear()
        self.statements.clear()
        self.logins.clear()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer one request as Snowflake does."""
        if path.startswith("/session/v1/login-request"):
            self.logins.append(_json(headers, body)["data"])
            refusal = self._refusal(path, self.logins[-1])
            return refusal or self._let_in(self._forwarded(method, path, headers, body)[1])
        if path.startswith("/queries/v1/query-request"):
            return self._statement(method, path, headers, body)
        if path.startswith("/session?delete=true"):
            self._end(_token(headers))
            return 200, b'{"success": true}'
        return self._forwarded(method, path, headers, body)

    def connected(self, token: str) -> None:
        """Note that a connection uses this session."""
        self._connections[token] += 1

    def disconnected(self, token: str) -> None:
        """Note that a connection of this session is closed; end the session with its last one."""
        self._connections[token] -= 1
        if not self._connections[token]:
            self._end(token)

    def _let_in(self, answer: bytes) -> Answer:
        """Add the master token, without which a client never logs out; fakesnow sends none."""
        login = json.loads(answer)
        login["data"]["masterToken"] = "master"
        self._open.add(login["data"]["token"])
        return 200, json.dumps(login).encode()

    def _end(self, token: str) -> None:
        """End a session and its transaction, if it is open."""
        if token not in self._open:
            return
        self._open.remove(token)
        headers = {"Authorization": f'Snowflake Token="{token}"'}
        rollback = json.dumps({"sqlText": "ROLLBACK"}).encode()
        with self._one_statement:
            self._forwarded("POST", "/queries/v1/query-request", headers, rollback)
            self._forwarded("POST", "/session?delete=true", headers, b"")
        self._leave(token)

    def _statement(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        sql, token = str(_json(headers, body)["sqlText"]), _token(headers)
        self.statements.append(sql)
        for fault in self._faults:
            if fault[0] in sql:
                self._faults.remove(fault)
                return fault[1]
        if sql.startswith("BEGIN"):
            self._one_transaction.acquire()
            self._owner = token
        if _HEXADECIMAL.search(sql):
            request = _json(headers, body)
            request["sqlText"] = _HEXADECIMAL.sub(r"CAST('0x' || \1 AS BIGINT)", sql)
            headers = {name: headers[name] for name in headers if name != "Content-Encoding"}
            body = json.dumps(request).encode()
        with self._one_statement:
            status, answer = self._forwarded(method, path, headers, body)
        if sql in ("COMMIT", "ROLLBACK"):
            self._leave(token)
        if status == 500:
            return _refused(603, "XX000", f"Processing aborted: {json.loads(answer)['message']}")
        return status, answer

    def _leave(self, token: str) -> None:
        if self._owner == token:
            self._owner = None
            self._one_transaction.release()

    def _refusal(self, path: str, login: dict[str, Any]) -> Answer | None:
        if login["ACCOUNT_NAME"] != ACCOUNT:
            return 404, b""
        if login.get("AUTHENTICATOR") == "SNOWFLAKE_JWT":
            is_known = self._signed(login["TOKEN"])
        else:
            is_known = (login["LOGIN_NAME"], login["PASSWORD"]) == (USER, PASSWORD)
        if not is_known:
            return _refused(390100, "08001", "Incorrect username or password was specified.")
        requested = parse_qs(urlsplit(path).query)
        for name, parameter, existing in (
            ("database", "databaseName", DATABASE),
            ("warehouse", "warehouse", WAREHOUSE),
        ):
            if requested[parameter] != [existing]:
                message = f"The requested {name} does not exist or not authorized."
                return _refused(390201, "08004", message)
        return None

    def _signed(self, token: str) -> bool:
        try:
            claims = jwt.decode(token, self.public_key, algorithms=["RS256"])
        except jwt.PyJWTError:
            return False
        return bool(claims["sub"] == f"{ACCOUNT}.{USER}".upper())

    def _forwarded(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        fakesnow = HTTPConnection("127.0.0.1", self.fakesnow_port)
        try:
            fakesnow.request(method, path, body, headers)
            response = fakesnow.getresponse()
            return response.status, response.read()
        finally:
            fakesnow.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    # Else the body, sent after the headers, waits 40 ms for the client to acknowledge those.
    disable_nagle_algorithm = True
    snowflake: SnowflakeServer

    def setup(self) -> None:
        super().setup()
        self.tokens: set[str] = set()

    def finish(self) -> None:
        super().finish()
        for token in self.tokens:
            self.snowflake.disconnected(token)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # fakesnow builds the address of an upload from the client's Host.
        headers = {
            name: self.headers[name]
            for name in ("Host", "Authorization", "Content-Type", "Content-Encoding")
            if name in self.headers
        }
        token = _token(headers)
        if token and token not in self.tokens:
            self.tokens.add(token)
            self.snowflake.connected(token)
        status, answer = self.snowflake.answer(self.command, self.path, headers, body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _token(headers: dict[str, str]) -> str:
    match = _TOKEN.search(headers.get("Authorization", ""))
    return match[1] if match else ""


def _json(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    is_gzip = headers.get("Content-Encoding") == "gzip"
    document: dict[str, Any] = json.loads(gzip.decompress(body) if is_gzip else body)
    return document


def _refused(number: int, sqlstate: str, message: str) -> Answer:
    code = f"{number:06}"
    data = {"errorCode": code, "sqlState": sqlstate}
    return 200, json.dumps(
        {"data": data, "code": code, "message": message, "success": False}
    ).encode()


@contextmanager
def snowflake_server() -> Iterator[SnowflakeServer]:
    """Run a server until the end of the block.

    FINOPS_FAKESNOW may name another fakesnow than the one that `make test` installs.
    """
    executable = Path(os.environ.get("FINOPS_FAKESNOW", _EXECUTABLE))
    if not executable.is_file():
        pytest.fail(f"{executable} is missing; make test installs it", pytrace=False)
    with tempfile.TemporaryDirectory() as folder:
        fakesnow = subprocess.Popen(
            [executable, "--server"],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert fakesnow.stderr
        running = (re.search(r"running on http://[\d.]+:(\d+)", line) for line in fakesnow.stderr)
        port = int(next(filter(None, running))[1])
        Thread(target=fakesnow.stderr.read, daemon=True).start()
        server = SnowflakeServer(port)
        try:
            yield server
        finally:
            server.close()
            fakesnow.send_signal(signal.SIGINT)
            fakesnow.wait()
