"""Snowflake: logins, transient and permanent errors, stages, names in capitals, DDL."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError
from sqlglot import exp

from finops_dagster.lake import FolderFile, LakeSettings, open_lake
from finops_dagster.settings import Settings
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster_tests.project import ROOT
from finops_dagster_tests.servers.s3 import S3Server
from finops_dagster_tests.servers.snowflake import PASSWORD
from finops_dagster_tests.warehouses.adapters import running_adapter
from finops_dagster_tests.warehouses.conftest import MonthOf, refused
from finops_dagster_tests.warehouses.snowflake import Snowflake

pytestmark = pytest.mark.thorough

TABLE = "aws_billing_data"
COST = "lineitem_unblendedcost"


@pytest.fixture(scope="module")
def running_snowflake() -> Iterator[Snowflake]:
    with running_adapter("snowflake") as adapter:
        assert isinstance(adapter, Snowflake)
        yield adapter


@pytest.fixture
def account(running_snowflake: Snowflake, monkeypatch: pytest.MonkeyPatch) -> Snowflake:
    """Provide an empty schema, the password in the environment, and a client with one retry."""
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", PASSWORD)
    monkeypatch.setenv("MAX_CON_RETRY_ATTEMPTS", "1")
    running_snowflake.reset()
    return running_snowflake


def snowflake_warehouse(snowflake: Snowflake, **settings: Any) -> Warehouse:
    """Return the warehouse of the schema, with some settings changed."""
    table = {**snowflake.settings, **settings}
    database = {"backend": "snowflake", "snowflake": table}
    opened = open_warehouse(Settings.model_validate({"database": database}).database)
    return opened


def test_wrong_password(account: Snowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "guessed-password")
    with refused("Incorrect username or password"):
        snowflake_warehouse(account).check_connection()


def test_no_password(account: Snowflake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNOWFLAKE_PASSWORD")
    with refused("set SNOWFLAKE_PASSWORD, or for a key "):
        snowflake_warehouse(account).check_connection()


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("account", "emca", "404 Not Found"),
        ("warehouse", "huge", "The requested warehouse does not exist or not authorized"),
        ("database", "finance", "The requested database does not exist or not authorized"),
    ],
)
def test_missing_object_is_named(account: Snowflake, key: str, name: str, message: str) -> None:
    with refused(message):
        snowflake_warehouse(account, **{key: name}).check_connection()


def test_unreachable_server_is_transient(account: Snowflake) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with refused("Could not connect", WarehouseUnavailable):
        snowflake_warehouse(account, port=port).check_connection()


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_file(
    account: Snowflake,
    private_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Provide the user's key file, which has a passphrase; no password is set."""
    public = private_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    account.server.public_key = pem.decode()
    encryption = BestAvailableEncryption(b"open-sesame")
    path = tmp_path / "loader.p8"
    path.write_bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    monkeypatch.delenv("SNOWFLAKE_PASSWORD")
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PATH", str(path))
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PASSPHRASE", "open-sesame")
    return path


def test_key_pair(account: Snowflake, key_file: Path) -> None:
    assert snowflake_warehouse(account).check_connection() == "Snowflake acme-finops finops.billing"


def test_key_of_another_user_is_refused(account: Snowflake, key_file: Path) -> None:
    account.server.public_key = ""
    with refused("Incorrect username or password"):
        snowflake_warehouse(account).check_connection()


@pytest.mark.parametrize("wrong", ["", "close-sesame"])
def test_wrong_passphrase(
    account: Snowflake, key_file: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("SNOWFLAKE_PRIVATE_KEY_PASSPHRASE", wrong)
    with refused(r"no private key can be read from .*loader\.p8"):
        snowflake_warehouse(account).check_connection()


def test_missing_key_file(account: Snowflake, key_file: Path) -> None:
    key_file.unlink()
    with refused(r"no private key can be read from .*loader\.p8"):
        snowflake_warehouse(account).check_connection()


@pytest.mark.parametrize(
    "part", ["CREATE TABLE", "CREATE TEMPORARY STAGE", "COPY INTO", "DELETE", "INSERT INTO"]
)
def test_missing_right(account: Snowflake, month_of: MonthOf, part: str) -> None:
    message = "SQL access control error:\nInsufficient privileges to operate on schema 'BILLING'."
    account.server.fail_next(part, 3001, "42501", message)
    with refused("Insufficient privileges to operate on schema"):
        snowflake_warehouse(account).replace_month(month_of("v1"))


def test_lock_with_too_many_waiters_is_transient(account: Snowflake, month_of: MonthOf) -> None:
    loaded = snowflake_warehouse(account)
    loaded.replace_month(month_of("v1"))
    message = "Statement has locked table 'T' and this lock has not yet been released."
    account.server.fail_next("DELETE", 625, "57014", message)
    with refused("has locked table", WarehouseUnavailable):
        loaded.replace_month(month_of("v2"))
    assert account.rows(TABLE, ("manifest_id",), "2024-01") == [("v1",)]
    assert [state for *_, state, _ in account.ledger(TABLE)] == ["loaded"]
    loaded.replace_month(month_of("v2"))
    assert account.rows(TABLE, ("manifest_id",), "2024-01") == [("v2",)]


def test_unavailable_service_is_retried(account: Snowflake, month_of: MonthOf) -> None:
    account.server.unavailable_next("COPY INTO")
    snowflake_warehouse(account).replace_month(month_of("v1"))
    assert account.rows(TABLE, ("manifest_id",), "2024-01") == [("v1",)]


def test_failed_commit_keeps_the_loaded_version(account: Snowflake, month_of: MonthOf) -> None:
    loaded = snowflake_warehouse(account)
    loaded.replace_month(month_of("v1"))
    account.server.fail_next("COMMIT", 90232, "25000", "Transaction was rolled back.")
    with refused("Transaction was rolled back"):
        loaded.replace_month(month_of("v2"))
    assert account.rows(TABLE, ("manifest_id",), "2024-01") == [("v1",)]
    assert [row[1:4:2] for row in account.ledger(TABLE)] == [("v1", "loaded"), ("v2", "failed")]


def test_transaction_has_no_ddl(account: Snowflake, month_of: MonthOf) -> None:
    """Snowflake commits the open transaction before DDL."""
    loaded = snowflake_warehouse(account)
    loaded.replace_month(month_of("v1", changing="TIMESTAMP '2024-01-03 04:05:06'"))
    account.server.statements.clear()
    loaded.replace_month(month_of("v2", changing="'soon'", region="'eu'"))
    sent = account.server.statements
    begin, commit = sent.index("BEGIN TRANSACTION"), sent.index("COMMIT")
    first_words = [statement.split()[0] for statement in sent]
    defining = {"CREATE", "ALTER", "DROP", "PUT", "COPY", "TRUNCATE"}
    assert {"DELETE", "INSERT"} <= set(first_words[begin:commit])
    assert not defining & set(first_words[begin:commit])
    assert {"CREATE", "ALTER", "PUT", "COPY"} <= set(first_words[:begin])
    assert len(sent) == commit + 1


def test_queries_need_no_quotes(account: Snowflake, month_of: MonthOf) -> None:
    loaded = snowflake_warehouse(account)
    loaded.replace_month(month_of("v1", discount="MAP {'edp': 0.1::DECIMAL(38,18)}"))
    name = loaded.full_name(TABLE)
    assert name == "finops.billing.AWS_BILLING_DATA"
    rows = account.query(f"SELECT lineitem_unblendedcost, discount:edp::NUMBER(38,18) FROM {name}")
    assert rows == [(Decimal(1), Decimal("0.1"))]


def test_table_is_clustered_by_month(account: Snowflake, month_of: MonthOf) -> None:
    snowflake_warehouse(account).replace_month(
        month_of("v1", changing="TIMESTAMP '2024-01-03 04:05:06'")
    )
    snowflake_warehouse(account).replace_month(month_of("v2", changing="'soon'"))
    table = '"AWS_BILLING_DATA"'
    statements = [
        statement
        for statement in account.server.statements
        if statement.startswith(("CREATE TABLE", "CREATE OR")) and f"{table} " in statement
    ]
    assert {statement.partition(" TABLE")[0] for statement in statements} == {
        "CREATE",
        "CREATE OR REPLACE",
    }
    assert all('CLUSTER BY ("BILLING_MONTH")' in statement for statement in statements)


def test_session_parameters(account: Snowflake, month_of: MonthOf) -> None:
    job_id = snowflake_warehouse(account).replace_month(month_of("v1")).job_id
    parameters = account.server.logins[-1]["SESSION_PARAMETERS"]
    assert job_id.startswith("finops_acme_2024-01_")
    assert parameters["QUERY_TAG"] == job_id
    assert parameters["CLIENT_TELEMETRY_ENABLED"] is False
    assert parameters["TIMEZONE"] == "UTC"
    rows = account.query(f"SELECT job_id FROM {TABLE}_loads")
    assert rows == [(job_id,)]


@pytest.fixture
def stage_folder(account: Snowflake, tmp_path: Path) -> Path:
    """Provide the folder of the external stage LAKE, in the place of a bucket."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    account.query(f"CREATE OR REPLACE STAGE lake URL = 'file://{folder}/'")
    return folder


def copied_to_lake(file: MonthFile, lake: Path, folder: str = "2024-01") -> MonthFile:
    """Copy the file into a lake, and return it there.

    Its folder is not `billing_month=2024-01`, because DuckDB, on which fakesnow is built, would
    read the column from the folder's name.
    """
    path = lake / file.export / folder / f"{file.export}-{file.month}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file.local_path(), path)
    return MonthFile(**{**vars(file), "lake_file": FolderFile(path)})


def test_external_stage(
    account: Snowflake, month_of: MonthOf, stage_folder: Path, tmp_path: Path
) -> None:
    file = copied_to_lake(month_of("v1"), tmp_path / "lake")
    copied_to_lake(file, stage_folder)
    loaded = snowflake_warehouse(account, stage="finops.billing.lake")
    loaded.replace_month(file)
    assert file.footer.is_same_version(loaded.measured_version(file))
    assert not [sent for sent in account.server.statements if sent.startswith("PUT")]


def test_file_has_the_same_path_in_the_stage_as_in_the_lake(
    account: Snowflake, month_of: MonthOf, tmp_path: Path
) -> None:
    file = copied_to_lake(month_of("v1"), tmp_path, "billing_month=2024-01")
    account.server.fail_next("COPY INTO", 91016, "22000", "Remote file was not found.")
    with refused("Remote file was not found"):
        snowflake_warehouse(account, stage="lake/parquet").replace_month(file)
    (copied,) = [sent for sent in account.server.statements if sent.startswith("COPY")]
    assert "FROM @lake/parquet)" in copied
    assert "FILES = ('acme/billing_month=2024-01/acme-2024-01.parquet')" in copied


def test_external_stage_with_another_version(
    account: Snowflake, month_of: MonthOf, stage_folder: Path, tmp_path: Path
) -> None:
    file = copied_to_lake(month_of("v2"), tmp_path / "lake")
    copied_to_lake(month_of("v1"), stage_folder)
    with refused("stage lake has version v1 of acme 2024-01, but the lake has v2;"):
        snowflake_warehouse(account, stage="lake").replace_month(file)


def test_external_stage_without_the_file(
    account: Snowflake, month_of: MonthOf, stage_folder: Path, tmp_path: Path
) -> None:
    file = copied_to_lake(month_of("v1"), tmp_path / "lake")
    with refused(r"acme-2024-01\.parquet"):
        snowflake_warehouse(account, stage="lake").replace_month(file)
    assert account.ledger(TABLE)[-1][3] == "failed"


@pytest.fixture
def file_in_bucket(month_of: MonthOf, s3: S3Server, bucket: str, tmp_path: Path) -> MonthFile:
    """Provide a month of a lake in S3, with an empty log of requests."""
    keys = LakeSettings(endpoint_url=s3.url, region="us-east-1")
    file = month_of("v1", tags="MAP {'a': 'b'}", lines="['1', '2']")
    for process in ("writer", "loader"):
        lake = open_lake(f"s3://{bucket}/finops", keys, tmp_path / process)
        stored = lake.file(file.export, file.month)
        if process == "writer":
            with stored.replacing() as new:
                shutil.copy(file.local_path(), new.path)
    s3.requests.clear()
    return replace(file, lake_file=stored)


def test_a_month_of_a_lake_in_a_store_is_copied_from_the_stage(
    account: Snowflake, file_in_bucket: MonthFile, s3: S3Server
) -> None:
    """The statements are held to Snowflake's grammar; fakesnow cannot read a bucket."""
    account.server.statements.clear()
    account.server.fail_next("COPY INTO", 91016, "22000", "Remote file was not found.")
    with refused("Remote file was not found"):
        snowflake_warehouse(account, stage="finops.billing.lake").replace_month(file_in_bucket)
    sent = {statement: parsed(statement) for statement in account.server.statements}
    assert not any(isinstance(tree, exp.Command) for tree in sent.values())
    (copy,) = (tree for tree in sent.values() if isinstance(tree, exp.Copy))
    stage = copy.args["files"][0].find(exp.Table)
    assert stage.sql("snowflake") == "@finops.billing.lake"
    options = {param.this.name: param for param in copy.args["params"]}
    assert set(options) == {"FILES", "FILE_FORMAT"}
    name = str(file_in_bucket.lake_file.verified_store_uri()).partition("/finops/")[2]
    assert options["FILES"].expression.find(exp.Literal).name == name
    assert re.fullmatch(r"acme/billing_month=2024-01/acme-2024-01-[0-9a-f]{12}\.parquet", name)
    formats = {
        item.this.name: item.args["value"].sql("snowflake")
        for item in options["FILE_FORMAT"].expressions
    }
    assert formats == {"TYPE": "PARQUET", "USE_VECTORIZED_SCANNER": "TRUE"}
    assert not [sql for sql in sent if sql.startswith(("PUT", "CREATE TEMPORARY STAGE"))]
    assert not [path for verb, path in s3.requests if verb == "GET" and ".parquet" in path]


def test_a_month_whose_object_was_replaced_is_compared_here_and_not_copied_from_the_stage(
    account: Snowflake, file_in_bucket: MonthFile, s3: S3Server
) -> None:
    bucket, _, key = (
        str(file_in_bucket.lake_file.verified_store_uri()).removeprefix("s3://").partition("/")
    )
    s3.client().put_object(Bucket=bucket, Key=key, Body=b"PAR1")
    with refused("is damaged: it does not have the checksum of its record"):
        snowflake_warehouse(account, stage="lake").replace_month(file_in_bucket)
    assert not [sent for sent in account.server.statements if sent.startswith("COPY")]


def test_docs_of_the_stage_are_in_snowflakes_grammar() -> None:
    docs = (ROOT / "docs/warehouses.md").read_text()
    (block,) = (b for b in docs.split("```")[1::2] if "CREATE STORAGE INTEGRATION" in b)
    statements = sqlglot.parse(block, read="snowflake")
    types = [type(tree) for tree in statements]
    assert types == [exp.Create, exp.Describe, exp.Create, exp.Grant]


def parsed(statement: str) -> exp.Expression:
    """Return the tree of a statement in Snowflake's grammar."""
    return sqlglot.parse_one(statement, read="snowflake")


@pytest.mark.parametrize("stage", ["lake) FORCE = TRUE", "lake; DROP TABLE x", "@lake", "a/../b'"])
def test_stage_must_be_a_name(account: Snowflake, stage: str) -> None:
    with pytest.raises(ValidationError, match=r"stage\n  Value error, must be the name of a stage"):
        snowflake_warehouse(account, stage=stage)
