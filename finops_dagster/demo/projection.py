"""A column of an export as SQL over the CUR v1 columns of an example bill."""

from dataclasses import dataclass
from enum import StrEnum

from finops_dagster.billing.columns import literal, quoted
from finops_dagster.demo.athena_names import athena_names
from finops_dagster.demo.catalog import ACCOUNT_NAMES
from finops_dagster.demo.cur1_columns import HEADERS


class ColumnType(StrEnum):
    """The types of columns in AWS's exports, as DuckDB writes them to Parquet."""

    STRING = "VARCHAR"
    DOUBLE = "DOUBLE"
    TIMESTAMP = "TIMESTAMP_MS"
    MAP = "MAP(VARCHAR, VARCHAR)"
    DOUBLE_MAP = "MAP(VARCHAR, DOUBLE)"

    @property
    def manifest_name(self) -> str:
        """What the manifest of a Data Export calls it: string, double, timestamp or map."""
        return "map" if "MAP" in self.name else self.name.lower()


@dataclass(frozen=True)
class Column:
    """One column; `sql` gives a map, or the cell's text as it stands in CSV."""

    name: str
    type: ColumnType
    sql: str

    @property
    def in_csv(self) -> str:
        """The column as text; a map is one JSON object, `{}` when empty."""
        text = f"to_json({self.sql})::VARCHAR" if "MAP" in self.type.name else self.sql
        return f"{text} AS {quoted(self.name)}"

    @property
    def in_parquet(self) -> str:
        """The column in its type."""
        return f"CAST({self.sql} AS {self.type}) AS {quoted(self.name)}"


def family_map(category: str, *, doubles: bool = False) -> str:
    """Return the SQL of a map with what a row has of a column family, under Athena's names."""
    headers = [header for header in HEADERS if header.startswith(f"{category}/")]
    keys = athena_names(header.partition("/")[2] for header in headers)
    entries = ", ".join(
        f"{{'key': {literal(key)}, 'value': {quoted(f'{category}/{name}')}"
        f"{'::DOUBLE' if doubles else ''}}}"
        for name, key in sorted(keys.items(), key=lambda item: item[1])
    )
    return f"filled([{entries}])"


def account_name(header: str) -> str:
    """Return the SQL of the name of the account in a column."""
    names = " ".join(
        f"WHEN {literal(account)} THEN {literal(name)}" for account, name in ACCOUNT_NAMES.items()
    )
    return f"CASE {quoted(header)} {names} END"


def with_milliseconds(header: str) -> str:
    """Return the SQL of a CUR v1 time as Data Exports write it: `2025-09-01T00:00:00.000Z`."""
    return f"replace({quoted(header)}, 'Z', '.000Z')"
