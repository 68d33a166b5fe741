"""Creates the relations of queries: each export's table, and the charges of all exports.

They are views over the Parquet files, in a DuckDB in memory, so nothing is loaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import chain

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import LakeReader
from finops_dagster.reports.accounts import AccountsFile, AccountsSettings, read_accounts
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.bill_files import AS_TEXT
from finops_dagster.tables.database import DuckDB

# FOCUS does not require them of an export that has no sub accounts.
_ACCOUNT_COLUMNS = Sql("""
SELECT
    CAST(NULL AS VARCHAR) AS BillingAccountId, CAST(NULL AS VARCHAR) AS BillingAccountName,
    CAST(NULL AS VARCHAR) AS SubAccountId, CAST(NULL AS VARCHAR) AS SubAccountName,
    CAST(NULL AS TIMESTAMP) AS ChargePeriodStart
WHERE false
""")
# What follows `FROM focus` to join the lines of the accounts file: that of the sub account, or else
# that of the billing account, which is valid when the charge begins.
ACCOUNT_JOINS = Sql("""
LEFT JOIN account_spellings AS own
    ON own.spelling = SubAccountId
    AND CAST(ChargePeriodStart AS DATE) BETWEEN own.first_day AND own.last_day
LEFT JOIN account_spellings AS billed
    ON billed.spelling = BillingAccountId
    AND CAST(ChargePeriodStart AS DATE) BETWEEN billed.first_day AND billed.last_day
    AND own.spelling IS NULL
""")


@contextmanager
def open_relations(
    database: DuckDB,
    lake: LakeReader,
    exports: Sequence[ExportSettings],
    accounts: AccountsSettings,
) -> Iterator[tuple[DuckDBPyConnection, list[str]]]:
    """Open a DuckDB in memory for the block, with the relations of `create_relations`.

    The block gets the connection, whose time zone is UTC, and the names of the relations. Raises
    BillError if the accounts file cannot be used. Any error of DuckDB, also one in the block, is
    raised as the BillError of `query_error`.
    """
    with database.open_in_memory() as connection:
        # DuckDB shows times in the zone of the machine; results should be the same everywhere.
        connection.execute("SET TimeZone = 'UTC'")
        try:
            yield connection, create_relations(connection, lake, exports, accounts)
        except duckdb.Error as error:
            raise query_error(error) from error


def query_error(error: duckdb.Error) -> BillError:
    """Return the BillError, with advice, for an error of DuckDB in a query of this project.

    If memory and disk are not the cause, its message says that a Parquet file is damaged. Not for
    queries that people write, which may be wrong.
    """
    return BillError(
        memory_or_disk_problem(error)
        or f"{first_line(error)}; a Parquet file is damaged: run finops state verify --deep"
    )


def create_relations(
    connection: DuckDBPyConnection,
    lake: LakeReader,
    exports: Sequence[ExportSettings],
    accounts: AccountsSettings,
) -> list[str]:
    """Create the relations of the exports' months in the connection, and return their names.

    - `<table>` of each export that has a month: the vendor's rows
    - `accounts`: the lines of the accounts file; empty without one
    - `focus`: the charges of all exports, if any month has charges
    - `focus_named`: `focus` with the line of the accounts file for each charge's account

    With `focus`, the table of `create_account_spellings` is created too; its name is not returned.
    Raises BillError if the accounts file cannot be used, and duckdb.Error if a Parquet file cannot
    be read.
    """
    names, charges = list[str](), list[Sql]()
    for export in exports:
        months = _months_of(connection, lake, export)
        if months is not None:
            connection.execute(f"CREATE VIEW {quoted(export.table_name)} AS FROM {months}")
            names.append(export.table_name)
        months_of_charges = _months_of(connection, focus_lake(lake), export)
        if months_of_charges is not None:
            charges.append(months_of_charges)
    lines = read_accounts(accounts.file)
    _create_accounts(connection, lines)
    names.append("accounts")
    if charges:
        _create_focus(connection, charges)
        _create_focus_named(connection, lines)
        names += ["focus", "focus_named"]
    return names


def _months_of(
    connection: DuckDBPyConnection, lake: LakeReader, export: ExportSettings
) -> Sql | None:
    """Return what follows FROM for an export's months in a lake; None if it has none."""
    files = [*lake.files(export.name).values()]
    return lake.relation(connection, files) if files else None


def _create_accounts(connection: DuckDBPyConnection, accounts: AccountsFile) -> None:
    """Create the table `accounts`, with a row for each line, and further columns as in the file."""
    lines = accounts.lines
    _create_table(
        connection,
        Sql("accounts"),
        {
            "account_id": [line.account_id for line in lines],
            **{name: [line.texts.get(name) for line in lines] for name in accounts.text_columns},
        },
        {
            "valid_from": [line.valid_from for line in lines],
            "valid_to": [line.valid_to for line in lines],
        },
    )


def create_account_spellings(connection: DuckDBPyConnection, accounts: AccountsFile) -> list[str]:
    """Create the table `account_spellings` for ACCOUNT_JOINS, and return its columns of texts.

    It has a row for each spelling of the id of each line: `spelling`, `first_day` and `last_day`,
    both included, and the columns of texts, such as `AccountOwner`.
    """
    lines = [(spelling, line) for line in accounts.lines for spelling in sorted(line.spellings)]
    named = {_named_column(name): name for name in accounts.text_columns}
    _create_table(
        connection,
        Sql("account_spellings"),
        {
            "spelling": [spelling for spelling, _ in lines],
            **{
                column: [line.texts.get(name) for _, line in lines]
                for column, name in named.items()
            },
        },
        {
            "first_day": [line.valid_from or date.min for _, line in lines],
            "last_day": [line.valid_to or date.max for _, line in lines],
        },
    )
    return list(named)


def _create_focus_named(connection: DuckDBPyConnection, accounts: AccountsFile) -> None:
    """Create the view `focus_named`: each charge with the line of its account, if there is one.

    No two lines of an account are valid on the same day, so no charge is counted twice.
    """
    named = create_account_spellings(connection, accounts)
    cells = Sql(", ").join(
        Sql(f"coalesce(own.{quoted(column)}, billed.{quoted(column)}) AS {quoted(column)}")
        for column in named
        if column != "AccountName"
    )
    # A sub account without a line has the owner of its billing account's line, but not its name.
    connection.execute(
        Sql(f"""
        CREATE VIEW focus_named AS
        SELECT
            focus.*,
            coalesce(
                own.AccountName, SubAccountName, SubAccountId, billed.AccountName,
                BillingAccountName, BillingAccountId
            ) AS AccountName,
            {cells},
            own.spelling IS NOT NULL OR (SubAccountId IS NULL AND billed.spelling IS NOT NULL)
                AS AccountListed
        FROM focus
        {ACCOUNT_JOINS}
        """)
    )


def _create_table(
    connection: DuckDBPyConnection,
    name: Sql,
    texts: Mapping[str, Sequence[str | None]],
    dates: Mapping[str, Sequence[date | None]],
) -> None:
    """Create a table of these columns, whose cells are all given in the order of its rows."""
    columns = [Sql(f"unnest(CAST(? AS VARCHAR[])) AS {quoted(column)}") for column in texts]
    columns += [Sql(f"unnest(CAST(? AS DATE[])) AS {quoted(column)}") for column in dates]
    select = Sql(", ").join(columns)
    cells = [*texts.values(), *dates.values()]
    connection.execute(Sql(f"CREATE TABLE {name} AS SELECT {select}"), cells)


def _named_column(heading: str) -> str:
    """Return the column of `focus_named` for a column of the file: `AccountCostCentre`."""
    words = re.split(r"[\W_]+", heading)
    return "Account" + ("".join(word[:1].upper() + word[1:] for word in words) or heading)


def _create_focus(connection: DuckDBPyConnection, relations: Sequence[Sql]) -> None:
    """Create the view `focus` of the charges of each export.

    A vendor's own column that has other types in two exports is text.
    """
    columns = [
        {
            name: sql_type
            for name, sql_type, *_ in connection.execute(f"DESCRIBE FROM {r}").fetchall()
        }
        for r in relations
    ]
    types: dict[str, set[str]] = defaultdict(set)
    for name, sql_type in chain.from_iterable(map(dict.items, columns)):
        types[name.lower()].add(sql_type)

    def cell(name: str, sql_type: str) -> Sql:
        if len(types[name.lower()]) == 1:
            return quoted(name)
        as_text = AS_TEXT.get(sql_type, Sql("CAST({0} AS VARCHAR)"))
        return Sql(f"{as_text.format(quoted(name))} AS {quoted(name)}")

    selects = [
        Sql(f"SELECT {', '.join(cell(*column) for column in of_export.items())} FROM {relation}")
        for of_export, relation in zip(columns, relations, strict=True)
    ]
    union = Sql(" UNION ALL BY NAME ").join([*selects, _ACCOUNT_COLUMNS])
    connection.execute(f"CREATE VIEW focus AS {union}")
