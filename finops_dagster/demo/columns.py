"""The columns of each layout: a table of names, types, and SQL over the charges of a bill.

`cur1.csv`, `cur2.csv` and `focus.csv` hold them, a line for all that share type and value. SQL that
names `charge.` is of every charge, other SQL of every slot (see charges.sql); none is an empty
column, and a product column without any is an attribute of the charge. A map's value is SQL or a
family of CUR v1, whose filled columns it holds. In `cur2.csv` a line without a type takes columns,
or whole families, over from CUR v1 under Athena's names.
https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html
https://focus.finops.org/focus-specification/v1-2/
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from finops_dagster.billing.columns import Sql, literal

# What DuckDB writes to Parquet for the types of manifests; what is not here is text.
_PARQUET_TYPES = {
    "BigDecimal": "DOUBLE",
    "OptionalBigDecimal": "DOUBLE",
    "DateTime": "TIMESTAMP_MS",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMP_MS",
    "map": "MAP(VARCHAR, VARCHAR)",
    "double map": "MAP(VARCHAR, DOUBLE)",
}
# In the order in which AWS writes them. What grows with the bill is sorted by name, capitals first.
_FAMILIES = (
    "identity bill lineItem"
    " product pricing reservation savingsPlan discount resourceTags costCategory"
).split()
_SORTED = _FAMILIES[3:]


@dataclass(frozen=True)
class Column:
    """One column; of CUR v1, the name is `family/Name`."""

    name: str
    type: str
    value: str

    def is_of(self, family: str) -> bool:
        """Whether it is a column of a family of CUR v1."""
        return self.name.startswith(f"{family}/")

    @property
    def is_of_slot(self) -> bool:
        """Whether every charge of a slot has the same value."""
        return "charge." not in self.value

    def sql(self, *, parquet: bool) -> Sql:
        """Return the SQL of the value in its Parquet type, or of the text that CSV holds."""
        parquet_type = _PARQUET_TYPES.get(self.type, "VARCHAR")
        value = f"CAST({self.value or 'NULL'} AS {parquet_type})"
        if parquet:
            return Sql(value)
        if "map" in self.type:
            return Sql(f"CAST(to_json({value}) AS VARCHAR)")
        if self.type in ("DateTime", "timestamp"):
            moment = f"moment({self.value})"
            return Sql(moment if self.type == "DateTime" else f"replace({moment}, 'Z', '.000Z')")
        return Sql(f"CAST({self.value or 'NULL'} AS VARCHAR)")


def cur1_columns(width: int) -> list[Column]:
    """Return `width` columns of CUR v1 in AWS's order: the 67 of every export, then those that AWS
    adds for what is in a bill, then many that this bill leaves empty."""
    everything = _cur1()
    if not 67 <= width <= len(everything):
        raise ValueError(f"columns must be 67 to {len(everything)}, not {width}")
    columns: list[Column] = []
    for family in _FAMILIES:
        own = [column for column in everything[:width] if column.is_of(family)]
        columns += sorted(own, key=_name) if family in _SORTED else own
    return columns


def in_athena(columns: Iterable[Column]) -> dict[str, Column]:
    """Return columns of CUR v1 by the names that Athena gives them. Tag keys are free text: the
    second one of a name is left out."""
    named: dict[str, Column] = {}
    for column in columns:
        named.setdefault(athena_name(column.name), column)
    return named


def athena_name(text: str) -> str:
    """Put an underscore before every capital and for all but letters and digits, never two.

    `lineItem/UnblendedCost` is `line_item_unblended_cost`, `reservation/ReservationARN` is
    `reservation_reservation_a_r_n`, and `user:cost-center` is `user_cost_center`.
    """
    split = re.sub(r"([A-Z])", r"_\1", text).lower()
    return re.sub(r"[^a-z0-9]+", "_", split).strip("_")


@cache
def cur2_columns() -> list[Column]:
    """Return the columns of CUR 2.0, in the order of the alphabet."""
    types = {"DOUBLE": "double", "TIMESTAMP_MS": "timestamp"}
    columns = []
    for name, row in _table("cur2"):
        if row["type"]:
            columns.append(Column(name, row["type"], row["value"]))
            continue
        for column in _cur1():
            if column.name == name or column.is_of(name):
                type_ = types.get(_PARQUET_TYPES.get(column.type, ""), "string")
                columns.append(Column(athena_name(column.name), type_, column.value))
    return sorted(columns, key=_name)


@cache
def focus_columns(format_: str) -> list[Column]:
    """Return the columns of focus-1.0 or focus-1.2, in the order of the alphabet."""
    return sorted(
        (
            Column(name, row["type"], row["value"])
            for name, row in _table("focus")
            if format_.removeprefix("focus-") in row["versions"].split()
        ),
        key=_name,
    )


@cache
def _cur1() -> list[Column]:
    return [
        Column(f"{row['family']}/{name}", row["type"], row["value"] or _attribute(row, name))
        for name, row in _table("cur1")
    ]


def _attribute(row: dict[str, str], name: str) -> str:
    return f"attributes[{literal(name)}]" if row["family"] == "product" else ""


def _table(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of every column of a table with its line, where a family is SQL."""
    path = Path(__file__).with_name(f"{name}.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if "map" in row["type"] and row["value"] in _FAMILIES:
                row["value"] = _family_map(row["value"])
            for column in row["names"].split("|"):
                yield column, row


def _family_map(family: str) -> str:
    """Return the SQL of a map with what a charge has of a family, by the names of Athena."""
    entries: dict[str, str] = {}
    for column in _cur1():
        if column.is_of(family):
            key = athena_name(column.name.partition("/")[2])
            entries.setdefault(key, column.value or "NULL::VARCHAR")
    pairs = (f"{{'key': {literal(key)}, 'value': {entries[key]}}}" for key in sorted(entries))
    return f"filled([{', '.join(pairs)}])"


def _name(column: Column) -> str:
    return column.name
