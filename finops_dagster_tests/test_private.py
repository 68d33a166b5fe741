"""What is not for everybody: no secret is in anything that is said or written, and what is written
is its owner's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from psycopg.sql import SQL, Literal

from finops_dagster.pipeline.build import build_definitions
from finops_dagster.settings import load_settings
from finops_dagster_tests.canaries import CANARIES, below, leaks
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.listening import addresses
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.servers.snowflake import snowflake_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Plant = Callable[[Finops, pytest.MonkeyPatch], str]
DAGSTER = str(Path(sys.executable).parent / "dagster")
SETTINGS = """
[database]
backend = "postgresql"

[database.postgresql]
host = "{host}"
database = "postgres"
user = "loader"

[database.bigquery]
project_id = "acme"

[database.snowflake]
account = "acme"
user = "loader"
warehouse = "loading"
database = "finops"

[database.sql]
destination = "sqlalchemy"

[database.sql.credentials]
drivername = "postgresql+psycopg"
username = "stranger"
database = "postgres"
query = {{ host = "{host}" }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    """Lets in the user `loader` with the planted password, and `stranger` with another."""
    with PostgreSQLServer() as server, server.connect() as connection:
        for user, password in (("loader", CANARIES["POSTGRESQL_PASSWORD"]), ("stranger", "other")):
            role = SQL(f"CREATE ROLE {user} LOGIN PASSWORD {{}}").format(Literal(password))
            connection.execute(role)
        connection.execute("GRANT CREATE ON DATABASE postgres TO loader")
        yield server


@pytest.fixture
def finops(
    project: Project,
    s3: S3Server,
    bucket: str,
    server: PostgreSQLServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Finops:
    """The command where every secret is a canary, two months are in a bucket, and PostgreSQL is
    their warehouse."""

    def put(key: str, body: bytes) -> None:
        s3.client().put_object(Bucket=bucket, Key=f"cur/{key}", Body=body)

    for month in ("2024-01", "2024-02"):
        deliver(put, month, [items(month, "1")], version="v1")
    for name, canary in CANARIES.items():
        monkeypatch.setenv(name, canary)
    finops = Finops(project)
    finops.environment = project.shell_environment(
        f'endpoint_url = "{s3.url}"\n{SETTINGS.format(host=server.host)}'
    )
    file = project.folder / "finops.toml"
    file.write_text(file.read_text().replace("file://source", f"s3://{bucket}/cur"))
    monkeypatch.setenv("FINOPS_CONFIG", "finops.toml")
    return finops


def written(finops: Finops) -> list[Path]:
    """The folders that the project has made; `told` is the reader's own."""
    return [finops.project.folder / name for name in ("data", ".dagster", "told")]


def said(finops: Finops, *arguments: str) -> str:
    """What a command says in this process, with all that its error came from. A table would break
    a secret in two."""
    result = finops.here(*arguments)
    error = result.exc_info[1] if result.exc_info else None
    return result.output + "".join(traceback.format_exception(error))


def test_what_is_written_is_its_owners_and_has_no_secret_nor_has_what_is_said(
    finops: Finops, server: PostgreSQLServer
) -> None:
    told = finops.project.folder / "told"
    told.mkdir(mode=0o700)
    outputs = []
    for command in (
        [*FINOPS, "aws", "run-pipeline", "--end-date", "2024-01"],
        [
            *(DAGSTER, "asset", "materialize", "-m", "finops_dagster.definitions"),
            *("--select", "group:acme", "--partition", "2024-02"),
        ],
        [*FINOPS, "state", "export", "told/state.json"],
    ):
        done = subprocess.run(
            command,
            cwd=finops.project.folder,
            env={**finops.environment, "DAGSTER_HOME": str(finops.project.folder / ".dagster")},
            umask=0o022,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        outputs.append(done.stdout)
    open_to_others = [
        str(path) for path in below(written(finops)) if path.stat().st_mode & 0o077 != 0
    ]
    assert open_to_others == []

    outputs += [
        said(finops, *command.split())
        for command in (
            "config --json",
            "config check --json",
            "state show acme 2024-02 --json",
            "state report --format html",
            "state verify",
        )
    ]
    assert "all agree" in outputs[-1]
    with server.connect() as connection:
        loads = connection.execute("SELECT * FROM finops.aws_billing_data_loads").fetchall()
    assert len(loads) == 2
    definitions = build_definitions(load_settings())
    stores = (definitions.resources or {})["stores"]
    tick = definitions.get_sensor_def("acme_manifests")(
        dg.build_sensor_context(
            dg.DagsterInstance.ephemeral(), definitions=definitions, resources={"stores": stores}
        )
    )
    assert leaks(written(finops), *outputs, str(loads), repr(tick)) == []


def broken_google_key(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    key = {
        "type": "service_account",
        "client_email": "finops@acme",
        "token_uri": "http://127.0.0.1:1",
        "private_key": CANARIES["AWS_SECRET_ACCESS_KEY"],
    }
    (finops.project.folder / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    return "bigquery"


def another_passphrase(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"another passphrase")
    )
    (finops.project.folder / "key.pem").write_bytes(encrypted)
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PATH", "key.pem")
    return "snowflake"


def another_password(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FINOPS_DATABASE__POSTGRESQL__USER", "stranger")
    return "postgresql"


def another_password_by_sql(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    return "sql"


REFUSED = {
    broken_google_key: "no Google credentials were found",
    another_passphrase: "no private key can be read from key.pem",
    another_password: 'password authentication failed for user "stranger"',
    another_password_by_sql: 'password authentication failed for user "stranger"',
}


@pytest.mark.thorough
def test_a_warehouse_that_lets_nobody_in_is_told_without_the_secret(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plant, reason in REFUSED.items():
        with monkeypatch.context() as here:
            backend = plant(finops, here)
            reached = said(finops, "--backend", backend, "config", "check", "--json")
            ran = said(finops, "--backend", backend, "aws", "run-pipeline", "--end-date", "2024-01")
        assert reason in ran
        assert leaks(written(finops), reached, ran) == []


def key_of_a_backend(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FINOPS_DATABASE__POSTGRESQL__PASSWORD", CANARIES["POSTGRESQL_PASSWORD"])
    return "database.postgresql.password: unknown key; docs/security.md says where secrets"


def key_of_dlt(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "DESTINATION__SQLALCHEMY__CREDENTIALS__PASSWORD"
    monkeypatch.setenv("FINOPS_DATABASE__SQL__CREDENTIALS__PASSWORD", CANARIES[name])
    return "give it in the environment, as DESTINATION__SQLALCHEMY__CREDENTIALS__PASSWORD"


def url(finops: Finops, monkeypatch: pytest.MonkeyPatch) -> str:
    file = finops.project.folder / "finops.toml"
    secret = f"http://acme:{CANARIES['AWS_SECRET_ACCESS_KEY']}@"
    file.write_text(file.read_text().replace("http://", secret))
    return "finops.toml: exports[0]: endpoint_url holds a secret; docs/security.md says where"


@pytest.mark.parametrize("plant", [key_of_a_backend, key_of_dlt, url])
def test_a_secret_in_the_settings_is_refused_and_not_shown(
    plant: Plant, finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = plant(finops, monkeypatch)
    shown, reached, ran = (
        said(finops, *command.split())
        for command in ("config --json", "config check --json", "aws run-pipeline")
    )
    assert reason in reached
    assert reason in ran
    assert leaks(written(finops), shown, reached, ran) == []


def test_a_token_that_the_store_repeats_is_not_told(finops: Finops, s3: S3Server) -> None:
    def expired(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("400 Bad Request", [("Content-Type", "application/xml")])
        token = environ["HTTP_X_AMZ_SECURITY_TOKEN"]
        assert token == CANARIES["AWS_SESSION_TOKEN"]
        return [
            b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>"
            b"<Token-0>" + token.encode() + b"</Token-0></Error>"
        ]

    s3.fault = expired
    output = said(finops, "aws", "run-pipeline", "--end-date", "2024-01")
    assert "the credentials have expired: renew them" in output
    assert leaks(written(finops), output) == []


def test_servers_are_for_this_machine_alone(s3: S3Server, server: PostgreSQLServer) -> None:
    with server.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchall() == [("",)]
    with BigQueryServer(), snowflake_server():
        assert addresses(os.getpid()) == {"127.0.0.1"}
