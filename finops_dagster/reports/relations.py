"""The relations of a query: each export's table, and the charges of all exports with their names.

They are views over the Parquet files, so that nothing is loaded, in a DuckDB in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, files_literal, quoted
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.bill_files import AS_TEXT

_MONTH_FILES = "billing_month=*/*.parquet"
# Months may differ in their columns. The files have billing_month as a DATE, which the name of the
# folder would replace by text.
_READ_OPTIONS = Sql("union_by_name = true, hive_partitioning = false")

# FOCUS does not require them of an export that has no sub accounts.
_ACCOUNT_COLUMNS = Sql("""
SELECT
    CAST(NULL AS VARCHAR) AS BillingAccountId, CAST(NULL AS VARCHAR) AS BillingAccountName,
    CAST(NULL AS VARCHAR) AS SubAccountId, CAST(NULL AS VARCHAR) AS SubAccountName,
    CAST(NULL AS TIMESTAMP) AS ChargePeriodStart
WHERE false
""")
_CREATE_ACCOUNTS = Sql("""
CREATE TABLE accounts (
    account_id VARCHAR, name VARCHAR, owner VARCHAR, environment VARCHAR, cost_centre VARCHAR,
    valid_from DATE, valid_to DATE
)
""")
# A charge has the line of its own account, or else that of the account that is billed. No two lines
# of an account are valid on the same day, so no charge is counted twice. The billed account answers
# for the charge, but has a name of its own.
_CREATE_FOCUS_NAMED = Sql("""
CREATE VIEW focus_named AS
SELECT
    focus.*,
    coalesce(
        own.name, SubAccountName, SubAccountId, billed.name, BillingAccountName, BillingAccountId
    ) AS AccountName,
    coalesce(own.owner, billed.owner) AS AccountOwner,
    coalesce(own.environment, billed.environment) AS AccountEnvironment,
    coalesce(own.cost_centre, billed.cost_centre) AS AccountCostCentre
FROM focus
LEFT JOIN accounts AS own
    ON own.account_id = SubAccountId
    AND ChargePeriodStart >= coalesce(own.valid_from, DATE '0001-01-01')
    AND ChargePeriodStart < coalesce(own.valid_to + 1, DATE '9999-12-31')
LEFT JOIN accounts AS billed
    ON own.account_id IS NULL
    AND billed.account_id = BillingAccountId
    AND ChargePeriodStart >= coalesce(billed.valid_from, DATE '0001-01-01')
    AND ChargePeriodStart < coalesce(billed.valid_to + 1, DATE '9999-12-31')
""")


def create_relations(
    connection: DuckDBPyConnection, parquet_dir: Path, exports: Sequence[ExportSettings]
) -> list[str]:
    """Create the views of the exports' months in the connection, and return the views' names.

    - `<table>` of each export that has a month: the vendor's rows
    - `focus`: the charges of all exports, if there are any
    - `accounts`: the lines of the accounts file
    - `focus_named`: `focus` with the names of its accounts, as `AccountName`, `AccountOwner`,
      `AccountEnvironment` and `AccountCostCentre`

    Raises duckdb.Error where a Parquet file cannot be read.
    """
    names, charges = list[str](), list[Sql]()
    focus = focus_lake(Lake(parquet_dir)).root
    for export in exports:
        if bill := _months_of(parquet_dir / export.name):
            connection.execute(f"CREATE VIEW {quoted(export.table_name)} AS FROM {bill}")
            names.append(export.table_name)
        if of_export := _months_of(focus / export.name):
            charges.append(of_export)
    connection.execute(_CREATE_ACCOUNTS)
    names.append("accounts")
    if charges:
        _create_focus(connection, charges)
        connection.execute(_CREATE_FOCUS_NAMED)
        names += ["focus", "focus_named"]
    return names


def _months_of(folder: Path) -> Sql | None:
    """Return what follows FROM for the months in a folder of the lake; None if it has none."""
    if not any(folder.glob(_MONTH_FILES)):
        return None
    return Sql(f"read_parquet({files_literal(folder, _MONTH_FILES)}, {_READ_OPTIONS})")


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
