"""Secrets are in nothing that is printed or written, and files are private to their owner."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from psycopg.sql import SQL, Literal
from pytest import MonkeyPatch

from finops_dagster.pipeline.build import build_definitions
from finops_dagster.settings import load_settings
from finops_dagster_tests.cur import Put
from finops_dagster_tests.exposure import SECRETS, leaks, listening_addresses, paths_below
from finops_dagster_tests.finops import FINOPS, Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.servers.snowflake import snowflake_server

DAGSTER = str(Path(sys.executable).parent / "dagster")
SETTINGS = """endpoint_url = "{s3}"

[database]
backend = "postgresql"
postgresql = {{ host = "{host}", database = "postgres", user = "loader" }}
bigquery = {{ project_id = "acme" }}
snowflake = {{ account = "acme", user = "loader", warehouse = "loading", database = "finops" }}

[database.sql]
destination = "sqlalchemy"
credentials.drivername = "postgresql+psycopg"
credentials.username = "stranger"
credentials.database = "postgres"
credentials.query = {{ host = "{host}" }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    """Start a PostgreSQL with the user `loader`, who has the planted password, and `stranger`."""
    with PostgreSQLServer() as server, server.connect() as connection:
        for user, password in (("loader", SECRETS["POSTGRESQL_PASSWORD"]), ("stranger", "other")):
            role = SQL(f"CREATE ROLE {user} LOGIN PASSWORD {{}}").format(Literal(password))
            connection.execute(role)
        connection.execute("GRANT CREATE ON DATABASE postgres TO loader")
        yield server


@pytest.fixture
def finops(
    project: Project,
    s3: S3Server,
    put_in_bucket: Put,
    server: PostgreSQLServer,
    monkeypatch: MonkeyPatch,
) -> Finops:
    """Return the command with all secrets in the environment, and two months in a bucket.

    PostgreSQL is the warehouse.
    """
    for month in ("2024-01", "2024-02"):
        project.deliver("1", month=month)
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    finops = Finops(project, SETTINGS.format(s3=s3.url, host=server.host))
    file = project.folder / "finops.toml"
    file.write_text(file.read_text().replace("file://source", project.export["source"]))
    return finops


def assert_nothing_leaks(finops: Finops, *outputs: str) -> None:
    """Assert that no secret is in the outputs, or in a file that the project wrote."""
    folders = [finops.project.folder / name for name in ("data", ".dagster", "exported")]
    assert leaks(folders, *outputs) == []


def output(finops: Finops, command: str) -> str:
    """Return what a command prints, and the tracebacks of its error and of its causes."""
    # Commands run with --json, as a table could break a secret over two lines.
    result = finops.run(*command.split())
    return result.output + "".join(traceback.format_exception(result.exception))


@pytest.mark.thorough
def test_files_are_private_and_neither_files_nor_output_have_a_secret(
    finops: Finops, server: PostgreSQLServer, monkeypatch: MonkeyPatch
) -> None:
    folder = finops.project.folder
    (folder / "exported").mkdir(mode=0o700)
    materialize = (DAGSTER, "asset", "materialize", "-m", "finops_dagster.definitions")
    outputs = []
    for command in (
        [*FINOPS, "aws", "run-pipeline", "--end-date", "2024-01"],
        [*materialize, "--select", "group:acme", "--partition", "2024-02"],
        [*FINOPS, "state", "export", "exported/state.json"],
    ):
        result = subprocess.run(
            command,
            cwd=folder,
            env={**finops.environment, "DAGSTER_HOME": str(folder / ".dagster")},
            umask=0o022,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout
        outputs.append(result.stdout)
    written = paths_below(folder / name for name in ("data", ".dagster", "exported"))
    assert [str(path) for path in written if path.stat().st_mode & 0o077 != 0] == []

    outputs += [
        output(finops, command)
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
    monkeypatch.setenv("FINOPS_CONFIG", "finops.toml")
    definitions = build_definitions(load_settings())
    names = ("stores", "staging", "lake", "database")
    resources = {name: (definitions.resources or {})[name] for name in names}
    context = dg.build_sensor_context(
        dg.DagsterInstance.ephemeral(), definitions=definitions, resources=resources
    )
    tick = definitions.get_sensor_def("acme_manifests")(context)
    assert_nothing_leaks(finops, *outputs, str(loads), repr(tick))


WRONG_PASSWORD = 'password authentication failed for user "stranger"'
GOOGLE_KEY = {
    "type": "service_account",
    "client_email": "finops@acme",
    "token_uri": "http://127.0.0.1:1",
    "private_key": SECRETS["AWS_SECRET_ACCESS_KEY"],
}


REFUSED = {
    "bigquery": ("GOOGLE_APPLICATION_CREDENTIALS", "key.json", "no Google credentials were found"),
    "snowflake": ("SNOWFLAKE_PRIVATE_KEY_PATH", "key.pem", "no private key can be read from key."),
    "postgresql": ("FINOPS_DATABASE__POSTGRESQL__USER", "stranger", WRONG_PASSWORD),
    "sql": ("UNUSED", "", WRONG_PASSWORD),
}


@pytest.mark.thorough
def test_the_error_of_a_refusing_warehouse_has_no_secret(
    finops: Finops, monkeypatch: MonkeyPatch
) -> None:
    Path("key.json").write_text(json.dumps(GOOGLE_KEY))
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"another passphrase")
    )
    Path("key.pem").write_bytes(encrypted)
    for backend, (variable, value, reason) in REFUSED.items():
        monkeypatch.setenv(variable, value)
        check_output = output(finops, f"--backend {backend} config check --json")
        run_output = output(finops, f"--backend {backend} aws run-pipeline --end-date 2024-01")
        assert reason in run_output
        assert_nothing_leaks(finops, check_output, run_output)


# The place of a secret, and the error about it.
IN_SETTINGS = {
    "FINOPS_DATABASE__POSTGRESQL__PASSWORD": (
        "database.postgresql.password: unknown key; docs/security.md says where secrets"
    ),
    "FINOPS_DATABASE__SQL__CREDENTIALS__PASSWORD": (
        "give it in the environment, as DESTINATION__SQLALCHEMY__CREDENTIALS__PASSWORD"
    ),
    "finops.toml": (
        "finops.toml: exports[0]: endpoint_url holds a secret; docs/security.md says where"
    ),
}


@pytest.mark.parametrize("place", IN_SETTINGS)
def test_a_secret_in_the_settings_is_refused_and_not_printed(
    finops: Finops, monkeypatch: MonkeyPatch, place: str
) -> None:
    secret = SECRETS["POSTGRESQL_PASSWORD"]
    if place == "finops.toml":
        file = finops.project.folder / place
        file.write_text(file.read_text().replace("http://", f"http://acme:{secret}@"))
    else:
        monkeypatch.setenv(place, secret)
    commands = ("config --json", "config check --json", "aws run-pipeline")
    config_output, check_output, run_output = (output(finops, command) for command in commands)
    assert IN_SETTINGS[place] in check_output
    assert IN_SETTINGS[place] in run_output
    assert_nothing_leaks(finops, config_output, check_output, run_output)


def test_a_token_in_the_stores_answer_is_not_printed(finops: Finops, s3: S3Server) -> None:
    def expired(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("400 Bad Request", [("Content-Type", "application/xml")])
        token = environ["HTTP_X_AMZ_SECURITY_TOKEN"]
        assert token == SECRETS["AWS_SESSION_TOKEN"]
        error = "<Code>ExpiredToken</Code><Message>The provided token has expired.</Message>"
        return [f"<Error>{error}<Token-0>{token}</Token-0></Error>".encode()]

    s3.fault = expired
    run_output = output(finops, "aws run-pipeline --end-date 2024-01")
    assert "the credentials have expired: renew them" in run_output
    assert_nothing_leaks(finops, run_output)


def test_servers_listen_on_this_machine_alone(s3: S3Server, server: PostgreSQLServer) -> None:
    with server.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchall() == [("",)]
    with BigQueryServer(), snowflake_server():
        assert listening_addresses(os.getpid()) == {"127.0.0.1"}
