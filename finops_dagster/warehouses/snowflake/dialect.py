"""Snowflake: the file is copied beside the table, and takes the month's place in a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from textwrap import shorten
from typing import Any, ClassVar

from snowflake.connector import SnowflakeConnection, errors

from finops_dagster.billing.columns import Sql, SqlType, name_within, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import DATE, HEX_DIGITS, DigestKind
from finops_dagster.warehouses.base import MonthFile, WarehouseUnavailable
from finops_dagster.warehouses.dialect import COUNT, Change, Dialect, texts
from finops_dagster.warehouses.snowflake import Settings
from finops_dagster.warehouses.snowflake.session import may_pass, session

_NO_SUCH_OBJECT = 2003
# What the connector is told of the network is also how long a statement may run, so those that
# move a month are given a time of their own.
_LOAD_SECONDS = 4 * 60 * 60
_MOVE_A_MONTH = ("PUT", "COPY", "DELETE", "INSERT", "CREATE OR REPLACE TABLE")


class SnowflakeDialect(Dialect):
    """One schema. Names are in capitals, so that a person writes them without quotes. What a load
    needs on its way lives no longer than its session."""

    types: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.TEXT: "VARCHAR",
            SqlType.MONEY: "NUMBER(38,18)",
            SqlType.TIME: "TIMESTAMP_NTZ",
            # Amounts in an OBJECT are fixed-point numbers of 38 digits as well.
            SqlType.TEXT_MAP: "OBJECT",
            SqlType.MONEY_MAP: "OBJECT",
            DATE: "DATE",
            COUNT: "NUMBER(38, 0)",
        }
    )
    as_text: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.MONEY: "{0}::VARCHAR",
            SqlType.TIME: "REGEXP_REPLACE(TO_VARCHAR({0}::TIMESTAMP_NTZ, "
            "'YYYY-MM-DD\"T\"HH24:MI:SS.FF6'), '[.]?0+$', '') || 'Z'",
            DATE: "{0}::VARCHAR",
            SqlType.TEXT_MAP: "TO_JSON({0})",
            SqlType.MONEY_MAP: "TO_JSON({0})",
        }
    )
    read_as: ClassVar[Mapping[str, Sql]] = texts(
        {
            SqlType.MONEY: "TRY_CAST({0} AS NUMBER(38,18))",
            SqlType.TIME: "TRY_CAST({0} AS TIMESTAMP_NTZ)",
            SqlType.TEXT_MAP: "TRY_PARSE_JSON({0})",
            SqlType.MONEY_MAP: "TRY_PARSE_JSON({0})",
        }
    )
    digest_kind = DigestKind.MD5
    casts = True
    defines_in_transaction = False  # a statement that defines something ends a transaction

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: SnowflakeConnection

    @contextmanager
    def connected(self, *, write: bool) -> Iterator[None]:
        with session(self._settings, self.job) as self._connection:
            yield

    def explanation(self, error: Exception) -> Exception | None:
        if not isinstance(error, errors.Error):
            return None
        kind = WarehouseUnavailable if may_pass(error) else BillError
        return kind(f"{self._where}: {shorten(str(error), 500, placeholder=' ...')}")

    def is_over(self, error: Exception) -> bool:
        """Adding to the ledger waits for nobody's transaction; but the load may be going on."""
        return not isinstance(error, WarehouseUnavailable)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        seconds = _LOAD_SECONDS if sql.startswith(_MOVE_A_MONTH) else None
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values or None, timeout=seconds)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def reach(self) -> str:
        """Log in, which takes the right to use the warehouse, the database and the schema."""
        self.query("SELECT CURRENT_VERSION()")
        return self._where

    def full_name(self, table: str) -> str:
        """Return `database.schema.TABLE`."""
        return f"{self._settings.database}.{self._settings.schema_name}.{self.name(table)}"

    def name(self, name: str) -> str:
        return name_within(self.longest_name, name).upper()

    def columns(self, table: str) -> dict[str, str]:
        """Return name and type of each column. Wakes no warehouse."""
        try:
            described = self.query(f"DESCRIBE TABLE {self.qualified(table)}")
        except errors.ProgrammingError as error:
            if error.errno == _NO_SUCH_OBJECT:
                return {}
            raise
        return {name: _plain(kind) for name, kind, *_ in described}

    def moment(self, moment: datetime) -> Sql:
        return Sql(f"'{moment:%Y-%m-%d %H:%M:%S.%f}'::TIMESTAMP_NTZ")

    def cell(self, name: str, wanted: str, held: Mapping[str, str]) -> Sql:
        cell = super().cell(name, wanted, held)
        return Sql(f"{cell}::{self.types[wanted]}") if wanted == SqlType.MONEY else cell

    def load_beside(self, file: MonthFile, change: Change) -> Sql:
        """Return the name of a temporary table that has the file's rows, in the file's types.

        The vectorized scanner is asked for because it alone reads a Parquet map as an object.
        """
        temporary = quoted(f"FINOPS_{self.job[-12:]}".upper())
        columns = {name: self.types[kind] for name, kind in file.types.items()}
        definitions = ", ".join(f"{self.quoted(name)} {kind}" for name, kind in columns.items())
        self.query(f"CREATE TEMPORARY TABLE {temporary} ({definitions})")
        stage = self._settings.stage
        if stage is None:
            self.query(f"CREATE TEMPORARY STAGE {temporary} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
            where = _in_quotes(f"file://{file.path.resolve()}")
            self.query(f"PUT {where} @{temporary} AUTO_COMPRESS = FALSE")
            source, files = temporary, ""
        else:
            in_lake = "/".join(file.path.parts[-3:])
            source, files = Sql(stage), f"FILES = ({_in_quotes(in_lake)})"
        cells = ", ".join(f"$1:{quoted(name)}::{kind}" for name, kind in columns.items())
        self.query(
            f"COPY INTO {temporary} FROM (SELECT {cells} FROM @{source}) {files} "
            "FILE_FORMAT = (TYPE = PARQUET USE_VECTORIZED_SCANNER = TRUE)"
        )
        if stage is not None:
            ((staged,),) = self.query(f"SELECT MAX(manifest_id) FROM {temporary}")
            if staged not in (None, file.footer.manifest_id):
                raise BillError(
                    f"stage {stage} holds version {staged} of {file.export} {file.month}, the "
                    f"lake holds {file.footer.manifest_id}; copy the lake to the stage and run the "
                    "month again"
                )
        return temporary

    def create_table(self, table: str, columns: Mapping[str, str], required: Any = ()) -> None:
        if required:
            super().create_table(table, columns, required)
            return
        definitions = ", ".join(f"{self.quoted(n)} {self.types[k]}" for n, k in columns.items())
        self.query(
            f"CREATE TABLE IF NOT EXISTS {self.qualified(table)} ({definitions}) "
            f"CLUSTER BY ({self.quoted('billing_month')})"
        )

    def add_columns(self, table: str, columns: Mapping[str, str]) -> None:
        for name, kind in columns.items():
            self.query(
                f"ALTER TABLE {self.qualified(table)} "
                f"ADD COLUMN IF NOT EXISTS {self.quoted(name)} {self.types[kind]}"
            )

    def make_text(self, table: str, columns: Mapping[str, str]) -> None:
        """Make the table anew, in one step, as Snowflake makes text of no column in place."""
        texts = {
            self.name(name): Sql(self.as_text[kind].format(self.quoted(name)))
            for name, kind in columns.items()
        }
        cells = ", ".join(
            f"{texts.get(name, quoted(name))} AS {quoted(name)}" for name in self.columns(table)
        )
        self.query(
            f"CREATE OR REPLACE TABLE {self.qualified(table)} "
            f"CLUSTER BY ({self.quoted('billing_month')}) "
            f"COPY GRANTS AS SELECT {cells} FROM {self.qualified(table)}"
        )

    @property
    def _where(self) -> str:
        settings = self._settings
        return f"Snowflake {settings.account} {settings.database}.{settings.schema_name}"

    # Digests.

    def digest_number(self, text: Sql) -> Sql:
        """X is a hexadecimal digit: docs.snowflake.com, *SQL format models*."""
        model = "X" * HEX_DIGITS
        return Sql(f"TO_NUMBER(SUBSTR(MD5({text}), 1, {HEX_DIGITS}), '{model}')")

    def digest_text(self, cell: Sql, of_type: str) -> Sql:
        match of_type:
            case SqlType.MONEY:
                return Sql(f"{cell}::NUMBER(38,18)::VARCHAR")
            case SqlType.TIME:
                return Sql(f"DATE_PART(EPOCH_MICROSECOND, {cell})::VARCHAR")
            case SqlType.TEXT:
                return Sql(f"{cell}::VARCHAR")
        return Sql(f"TO_VARCHAR({cell}, 'YYYY-MM-DD')")

    def entries(self, cell: Sql) -> Sql:
        return Sql(f"LATERAL FLATTEN(INPUT => {cell}) AS entry")


def _plain(kind: str) -> str:
    """Return what a type of a bill is called: `VARCHAR(16777216)` is text, and a VARIANT takes maps
    as an OBJECT does."""
    plain = kind if kind.startswith("NUMBER") else kind.partition("(")[0]
    return "OBJECT" if plain == "VARIANT" else plain


def _in_quotes(text: str) -> Sql:
    """Return a text as a literal of Snowflake's, in which a backslash escapes."""
    return Sql("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
