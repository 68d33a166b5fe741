"""The columns of each layout: a table of names, types, and SQL over the charges of a bill.

`cur1.csv` and `data_exports.csv` hold them, a line for all that share type and value. SQL that
names `charge.` is of every charge, other SQL of every slot (see charges.sql); none is an empty
column, and a product column without any is an attribute of the charge. A map's value is SQL or a
family of CUR v1, whose filled columns it holds. A Data Export's line without a type takes columns,
or whole families, over from CUR v1 under Athena's names.
https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2.html
https://focus.finops.org/focus-specification/v1-2/
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from finops_dagster.billing.columns import Sql, literal

_TEXT = "CAST({} AS VARCHAR)"
# What a manifest's type is in Parquet, and the text of it in CSV; the others are text in both.
_TYPES = {
    "BigDecimal": ("DOUBLE", _TEXT),
    "OptionalBigDecimal": ("DOUBLE", _TEXT),
    "double": ("DOUBLE", _TEXT),
    "DateTime": ("TIMESTAMP_MS", "moment({})"),
    "timestamp": ("TIMESTAMP_MS", "replace(moment({}), 'Z', '.000Z')"),
    "map": ("MAP(VARCHAR, VARCHAR)", "CAST(to_json({}) AS VARCHAR)"),
    "double map": (
        "MAP(VARCHAR, DOUBLE)",
        "CAST(to_json(CAST({} AS MAP(VARCHAR, DOUBLE))) AS VARCHAR)",
    ),
}
_DATA_EXPORT_TYPES = {"DOUBLE": "double", "TIMESTAMP_MS": "timestamp", "VARCHAR": "string"}
# In the order in which AWS writes them. From `product` on they grow with the bill, and each is
# sorted by name, capitals first.
_FAMILIES = (
    "identity bill lineItem"
    " product pricing reservation savingsPlan discount resourceTags costCategory"
).split()
_FIRST_SORTED = _FAMILIES.index("product")


@dataclass(frozen=True)
class Column:
    """One column; of CUR v1, the name is `family/Name`."""

    name: str
    type: str
    value: str = "NULL"

    @property
    def family(self) -> str:
        """The family of a column of CUR v1."""
        return self.name.partition("/")[0]

    @property
    def is_of_slot(self) -> bool:
        """Whether every charge of a slot has the same value."""
        return "charge." not in self.value

    @property
    def parquet_type(self) -> str:
        """The type in Parquet, as DuckDB names it."""
        return _TYPES.get(self.type, ("VARCHAR", ""))[0]

    def sql(self, *, parquet: bool) -> Sql:
        """Return the SQL of the value in its Parquet type, or of the text that CSV holds."""
        if parquet:
            return Sql(f"CAST({self.value} AS {self.parquet_type})")
        return Sql(_TYPES.get(self.type, ("", _TEXT))[1].format(self.value))


def cur1_columns(width: int) -> list[Column]:
    """Return `width` columns of CUR v1 in AWS's order: the 67 of every export, then those that AWS
    adds for what is in a bill, then many that this bill leaves empty."""

    def position(column: Column) -> tuple[int, str]:
        family = _FAMILIES.index(column.family)
        return family, column.name if family >= _FIRST_SORTED else ""

    return sorted(_cur1()[:width], key=position)


@cache
def data_export_columns(format_: str) -> list[Column]:
    """Return the columns of cur2, focus-1.0 or focus-1.2, in the order of the alphabet."""
    columns = []
    for name, row in _table("data_exports"):
        if format_ not in row["formats"].split():
            continue
        if row["type"]:
            columns.append(Column(name, row["type"], row["value"] or "NULL"))
            continue
        for column in _cur1():
            if name in (column.name, column.family):
                type_ = _DATA_EXPORT_TYPES[column.parquet_type]
                columns.append(Column(athena_name(column.name), type_, column.value))
    return sorted(columns, key=lambda column: column.name)


def athena_name(text: str) -> str:
    """Put an underscore before every capital and for all but letters and digits, never two.

    `lineItem/UnblendedCost` is `line_item_unblended_cost`, `reservation/ReservationARN` is
    `reservation_reservation_a_r_n`, and `user:cost-center` is `user_cost_center`.
    """
    split = re.sub(r"([A-Z])", r"_\1", text).lower()
    return re.sub(r"[^a-z0-9]+", "_", split).strip("_")


@cache
def _cur1() -> list[Column]:
    columns = []
    for name, row in _table("cur1"):
        attribute = f"attributes[{literal(name)}]" if row["family"] == "product" else "NULL"
        columns.append(Column(f"{row['family']}/{name}", row["type"], row["value"] or attribute))
    return columns


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
    values = {
        athena_name(column.name.partition("/")[2]): column.value
        for column in _cur1()
        if column.family == family
    }
    pairs = (f"{{'key': {literal(key)}, 'value': {values[key]}}}" for key in sorted(values))
    return f"filled([{', '.join(pairs)}])"
