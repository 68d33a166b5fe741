"""Snowflake: the file is copied into a temporary table, and inserted in one transaction."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

import snowflake.connector
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from snowflake.connector import SnowflakeConnection, errors

from finops_dagster.billing.columns import Sql, SqlType, quoted, shortened_name
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE, HEX_DIGITS, MAPS, DigestKind
from finops_dagster.warehouses.column_types import COUNT, ColumnType
from finops_dagster.warehouses.dialect import Dialect
from finops_dagster.warehouses.month_file import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.schema_change import SchemaChange
from finops_dagster.warehouses.snowflake.settings import SnowflakeSettings

_NO_SUCH_OBJECT = 2003
# Without a limit the connector retries a login for ever.
_LOGIN_TIMEOUT_SECONDS = 30
_NETWORK_TIMEOUT_SECONDS = 10 * 60
# Snowflake aborts the transaction of a dead client once another one has waited 5 minutes for it.
_LOCK_TIMEOUT_SECONDS = 30 * 60

# 604: the statement was cancelled from outside. 625: 20 statements already wait for the lock.
_TRANSIENT_CODES = {604, 625}
_TRANSIENT = (
    errors.OperationalError,
    errors.InternalServerError,
    errors.ServiceUnavailableError,
    errors.GatewayTimeoutError,
    errors.RequestTimeoutError,
    errors.BadGatewayError,
    errors.TooManyRequests,
    errors.OtherHTTPRetryableError,
    errors.RequestExceedMaxRetryError,
    errors.TokenExpiredError,
)
_PERMANENT = (errors.NonRetryableTlsError, errors.RevocationCheckError)
# The connector's network timeout also limits how long a statement may run, so that statements
# that move a month need a timeout of their own.
_BULK_TIMEOUT_SECONDS = 4 * 60 * 60
_PAGE = "docs/warehouses.md"
_BULK_STATEMENTS = ("PUT", "COPY", "DELETE", "INSERT", "CREATE OR REPLACE TABLE")


class SnowflakeDialect(Dialect):
    """One schema; all names are stored in capitals, so queries need no quotes.

    Snowflake drops the temporary table and the temporary stage of a load when the connection ends,
    even if this process is killed. In this file a stage is Snowflake's: a place for files.
    """

    column_types: ClassVar[Mapping[str, ColumnType]] = {
        SqlType.TEXT: ColumnType.of("VARCHAR", digest_text="{0}::VARCHAR"),
        SqlType.MONEY: ColumnType.of(
            "NUMBER(38,18)",
            "{0}::VARCHAR",
            from_text="TRY_CAST({0} AS NUMBER(38,18))",
            digest_text="{0}::NUMBER(38,18)::VARCHAR",
        ),
        SqlType.TIME: ColumnType.of(
            "TIMESTAMP_NTZ",
            "REGEXP_REPLACE(TO_VARCHAR({0}::TIMESTAMP_NTZ, "
            "'YYYY-MM-DD\"T\"HH24:MI:SS.FF6'), '[.]?0+$', '') || 'Z'",
            from_text="TRY_CAST({0} AS TIMESTAMP_NTZ)",
            digest_text="DATE_PART(EPOCH_MICROSECOND, {0})::VARCHAR",
        ),
        # Amounts in an OBJECT are fixed-point numbers of up to 38 digits, and so exact.
        **dict.fromkeys(
            MAPS, ColumnType.of("OBJECT", "TO_JSON({0})", from_text="TRY_PARSE_JSON({0})")
        ),
        DATE: ColumnType.of("DATE", "{0}::VARCHAR", digest_text="TO_VARCHAR({0}, 'YYYY-MM-DD')"),
        COUNT: ColumnType.of("NUMBER(38, 0)"),
    }
    add_column_clause: ClassVar[Sql] = Sql("ADD COLUMN IF NOT EXISTS")
    transactional_ddl = False  # DDL commits the open transaction
    digest_kind = DigestKind.MD5
    # X is a hexadecimal digit: docs.snowflake.com, *SQL format models*.
    md5_number: ClassVar[Sql] = Sql(
        f"TO_NUMBER(SUBSTR(MD5({{0}}), 1, {HEX_DIGITS}), '{'X' * HEX_DIGITS}')"
    )
    map_entries: ClassVar[Sql] = Sql("LATERAL FLATTEN(INPUT => {0}) AS entry")
    _settings: SnowflakeSettings
    _connection: SnowflakeConnection

    @property
    def location(self) -> str:
        settings = self._settings
        return f"Snowflake {settings.account} {settings.database}.{settings.schema_name}"

    @contextmanager
    def connect(self, *, write: bool) -> Iterator[None]:
        """Connect with the environment's credentials until the block ends.

        Raises BillError if there are none, or the private key cannot be read.
        """
        self._connection = snowflake.connector.connect(
            **self._settings.model_dump(by_alias=True, exclude={"stage"}, exclude_none=True),
            **_credentials(),
            validate_default_parameters=True,
            application="finops_dagster",
            paramstyle="qmark",
            login_timeout=_LOGIN_TIMEOUT_SECONDS,
            network_timeout=_NETWORK_TIMEOUT_SECONDS,
            # Else the connector asks the clouds' metadata services which cloud this machine is in.
            platform_detection_timeout_seconds=0.0,
            session_parameters={
                "CLIENT_TELEMETRY_ENABLED": False,
                "LOCK_TIMEOUT": _LOCK_TIMEOUT_SECONDS,
                "QUERY_TAG": self.job_id,
                "TIMEZONE": "UTC",
            },
        )
        self._connection.telemetry_enabled = False
        with closing(self._connection):
            yield

    def translate_error(self, error: Exception) -> Exception | None:
        if not isinstance(error, errors.Error):
            return None
        is_transient = isinstance(error, _TRANSIENT) or error.errno in _TRANSIENT_CODES
        is_transient = is_transient and not isinstance(error, _PERMANENT)
        message = f"{self.location}: {shorten(str(error), 500, placeholder=' ...')}"
        if is_transient:
            return WarehouseUnavailable(message)
        return BillError(f"{message}; check [database.snowflake] and the rights in {_PAGE}")

    def load_has_ended(self, error: Exception) -> bool:
        # After a lost connection the load may still run. After any other error the ledger's row can
        # be written at once: an INSERT never waits for a lock.
        return not isinstance(error, WarehouseUnavailable)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        seconds = _BULK_TIMEOUT_SECONDS if sql.startswith(_BULK_STATEMENTS) else None
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None, timeout=seconds)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def full_name(self, table: str) -> str:
        """Return `database.schema.TABLE`."""
        return f"{self._settings.database}.{self._settings.schema_name}.{self.stored_name(table)}"

    def stored_name(self, name: str) -> str:
        return shortened_name(self.max_name_bytes, name).upper()

    def read_columns(self, table: str) -> dict[str, str]:
        try:
            # DESCRIBE needs no running warehouse, and so costs nothing.
            described = self.query(f"DESCRIBE TABLE {self.table_sql(table)}")
        except errors.ProgrammingError as error:
            if error.errno == _NO_SUCH_OBJECT:
                return {}
            raise
        return {name: _native_type(declared) for name, declared, *_ in described}

    def placeholder(self, number: int) -> Sql:
        return Sql("?")

    def timestamp_literal(self, timestamp: datetime) -> Sql:
        return Sql(f"'{timestamp:%Y-%m-%d %H:%M:%S.%f}'::TIMESTAMP_NTZ")

    def column_expression(self, table: str, name: str, data_type: str) -> Sql:
        cell = super().column_expression(table, name, data_type)
        return Sql(f"{cell}::{self.native_type(data_type)}") if data_type == SqlType.MONEY else cell

    def load_incoming(self, file: MonthFile, change: SchemaChange) -> Sql:
        """Copy the file into a temporary table; return a SELECT of it in the target types.

        If the settings name an external stage, Snowflake reads the file from there. Otherwise, or
        if the lake is in a store and `LakeFile.verified_store_uri` returns None, it is uploaded.
        Raises BillError if the external stage has another version of the month than the lake.
        """
        # The last 12 characters of `job_id` are random: see Warehouse.replace_month.
        temporary = quoted(f"FINOPS_{self.job_id[-12:]}".upper())
        definitions = ", ".join(self.column_definitions(file.data_types))
        self.query(f"CREATE TEMPORARY TABLE {temporary} ({definitions})")
        external_stage = self._settings.stage
        if (
            file.lake_file.is_in_store
            and external_stage
            and not file.lake_file.verified_store_uri()
        ):
            external_stage = None
        if external_stage is None:
            self.query(f"CREATE TEMPORARY STAGE {temporary} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
            url = _string_literal(f"file://{file.local_path().resolve()}")
            self.query(f"PUT {url} @{temporary} AUTO_COMPRESS = FALSE")
            stage, files = temporary, ""
        else:
            stage = Sql(external_stage)
            self.loaded_from = f"@{external_stage}/{file.path_in_lake}"
            files = f"FILES = ({_string_literal(file.path_in_lake)})"
        cells = ", ".join(
            f"TO_JSON($1:{quoted(n)})"
            if n in file.list_columns
            else f"$1:{quoted(n)}::{self.native_type(data_type)}"
            for n, data_type in file.data_types.items()
        )
        # Only the vectorized scanner reads a Parquet map as an OBJECT.
        self.query(
            f"COPY INTO {temporary} FROM (SELECT {cells} FROM @{stage}) {files} "
            "FILE_FORMAT = (TYPE = PARQUET USE_VECTORIZED_SCANNER = TRUE)"
        )
        if external_stage is not None:
            version = self.quoted(file.version_column)
            ((id_in_stage,),) = self.query(f"SELECT MAX({version}) FROM {temporary}")
            if id_in_stage not in (None, file.bill_version_id):
                raise BillError(
                    f"stage {stage} has version {id_in_stage} of {file.export} {file.month}, but "
                    f"the lake has {file.footer.manifest_id}; copy the lake to the stage and run "
                    "the month again"
                )
        cast_to_text = {
            name: data_type
            for name, data_type in file.data_types.items()
            if change.target_types[name] != data_type
        }
        return self._select_with_text(temporary, list(file.data_types), cast_to_text)

    def _select_with_text(
        self, table: Sql, names: Sequence[str], cast_to_text: Mapping[str, str]
    ) -> Sql:
        """Return the rows of a table as a FROM item, with some columns cast to text."""
        casts = {n: self.column_types[data_type].to_text for n, data_type in cast_to_text.items()}
        cells = ", ".join(
            f"{casts.get(n, Sql('{0}')).format(self.quoted(n))} AS {self.quoted(n)}" for n in names
        )
        return Sql(f"(SELECT {cells} FROM {table})")

    def cast_columns_to_text(self, table: str, columns: Mapping[str, str]) -> None:
        # Snowflake cannot change a column to text in place, so the table is replaced in one step.
        present_types = {self.stored_name(name): columns[name] for name in columns}
        names = list(self.read_columns(table))
        rows = self._select_with_text(self.table_sql(table), names, present_types)
        self.query(
            f"CREATE OR REPLACE TABLE {self.table_sql(table)} {self.table_options(names)} "
            f"COPY GRANTS AS {rows}"
        )

    def create_view(self, view: str, query: Sql) -> None:
        # Without COPY GRANTS, readers would lose their rights.
        self.query(f"CREATE OR REPLACE VIEW {self.table_sql(view)} COPY GRANTS AS {query}")

    def table_options(self, columns: Collection[str]) -> Sql:
        stored_names = set(map(self.stored_name, columns))
        month = "BILLING_MONTH" if "BILLING_MONTH" in stored_names else "X_BILLING_MONTH"
        return Sql(f"CLUSTER BY ({quoted(month)})")


def _native_type(declared: str) -> str:
    """Return a declared type such as `VARCHAR(16777216)` as `column_types` names it."""
    native = declared if declared.startswith("NUMBER") else declared.partition("(")[0]
    return "OBJECT" if native == "VARIANT" else native  # a VARIANT takes maps as well


def _string_literal(text: str) -> Sql:
    """Return a text as a literal of Snowflake, in which a backslash escapes."""
    return Sql("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")


def _credentials() -> dict[str, Any]:
    key, passphrase, password = (
        os.environ.get(f"SNOWFLAKE_{name}")
        for name in ("PRIVATE_KEY_PATH", "PRIVATE_KEY_PASSPHRASE", "PASSWORD")
    )
    if not key and not password:
        raise BillError(
            "the environment has no Snowflake credentials; set SNOWFLAKE_PASSWORD, or for a key "
            "pair SNOWFLAKE_PRIVATE_KEY_PATH"
        )
    if not key:
        return {"password": password}
    try:
        private = load_pem_private_key(
            Path(key).read_bytes(), passphrase.encode() if passphrase else None
        )
    except (OSError, TypeError, ValueError) as error:
        raise BillError(
            f"SNOWFLAKE_PRIVATE_KEY_PATH: no private key can be read from {key}; check that it is "
            "a PEM file, and that SNOWFLAKE_PRIVATE_KEY_PASSPHRASE is its passphrase"
        ) from error
    return {"private_key": private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())}
