"""The columns of each layout: name, type, and SQL over the charges of a bill.

`cur1.csv` and `data_exports.csv` have a line for all columns of the same type and value. SQL that
names `charge.` differs by charge; other SQL differs by slot (see charges.sql). A column without a
value is empty, but a product column is an attribute of the charge. The value of a map is SQL, or a
family of CUR v1, whose filled columns are its entries. A line of `data_exports.csv` without a type
takes columns or whole families from CUR v1, under the names of Athena.

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
# The Parquet type, and the SQL of the text in CSV, of a manifest's type; others are text in both.
_TYPES = {
    "BigDecimal": ("DOUBLE", _TEXT),
    "OptionalBigDecimal": ("DOUBLE", _TEXT),
    "double": ("DOUBLE", _TEXT),
    "DateTime": ("TIMESTAMP_MS", "iso_time({})"),
    "timestamp": ("TIMESTAMP_MS", "replace(iso_time({}), 'Z', '.000Z')"),
    "map": ("MAP(VARCHAR, VARCHAR)", "CAST(to_json({}) AS VARCHAR)"),
    "double map": (
        "MAP(VARCHAR, DOUBLE)",
        "CAST(to_json(CAST({} AS MAP(VARCHAR, DOUBLE))) AS VARCHAR)",
    ),
}
_DATA_EXPORT_TYPES = {"DOUBLE": "double", "TIMESTAMP_MS": "timestamp", "VARCHAR": "string"}
# In AWS's order. From `product` on, a family has the columns that the bill needs, sorted by name,
# capitals first.
_FAMILIES = (
    "identity bill lineItem"
    " product pricing reservation savingsPlan discount resourceTags costCategory"
).split()
_FIRST_SORTED = _FAMILIES.index("product")


@dataclass(frozen=True)
class DemoColumn:
    """A column of a layout."""

    name: str
    """The header; in CUR v1 `family/Name`."""
    type: str
    """The type in the manifest, such as `BigDecimal`."""
    value: str = "NULL"
    """The SQL of the cell, over a charge or its slot, as charges.sql makes them."""

    @property
    def family(self) -> str:
        """The part of a CUR v1 column's name before the slash, such as `lineItem`."""
        return self.name.partition("/")[0]

    @property
    def is_per_slot(self) -> bool:
        """Whether the value is the same in all charges of a slot.

        A slot is one of 1,000 templates of charges. A bill repeats them in turn (see charges.sql).
        The charges of a slot differ in date, quantity and workload.
        """
        return "charge." not in self.value

    @property
    def parquet_type(self) -> str:
        """DuckDB's name of the column's type in Parquet."""
        return _TYPES.get(self.type, ("VARCHAR", ""))[0]

    def sql(self, *, parquet: bool) -> Sql:
        """Return the SQL of the value in its Parquet type, or of its text in CSV."""
        if parquet:
            return Sql(f"CAST({self.value} AS {self.parquet_type})")
        return Sql(_TYPES.get(self.type, ("", _TEXT))[1].format(self.value))


def cur1_columns(width: int) -> list[DemoColumn]:
    """Return `width` columns of CUR v1 in AWS's order; `width` is from 67 to 205.

    The 67 columns that every export has are always among them. A larger `width` adds first those
    that AWS adds for what is in the bill, and last some that are empty in this bill. An added
    column stands at its place in AWS's order, not at the end.
    """

    def position(column: DemoColumn) -> tuple[int, str]:
        family = _FAMILIES.index(column.family)
        return family, column.name if family >= _FIRST_SORTED else ""

    return sorted(_cur1()[:width], key=position)


@cache
def data_export_columns(layout_format: str) -> list[DemoColumn]:
    """Return the columns of the format cur2, focus-1.0 or focus-1.2, sorted by name.

    Every call returns the same list, so do not change it. It is empty for any other format.
    """
    columns = []
    for name, row in _table("data_exports"):
        if layout_format not in row["formats"].split():
            continue
        if row["type"]:
            columns.append(DemoColumn(name, row["type"], row["value"] or "NULL"))
            continue
        for column in _cur1():
            if name in (column.name, column.family):
                column_type = _DATA_EXPORT_TYPES[column.parquet_type]
                columns.append(DemoColumn(athena_name(column.name), column_type, column.value))
    return sorted(columns, key=lambda column: column.name)


def athena_name(text: str) -> str:
    """Return Athena's name of a header, or of a part of one.

    A capital becomes `_` and its small letter. Characters other than a-z and 0-9 become `_`, of
    which there are never two in a row, nor one at an end.

    `lineItem/UnblendedCost` is `line_item_unblended_cost`, `reservation/ReservationARN` is
    `reservation_reservation_a_r_n`, and `user:cost-center` is `user_cost_center`.
    """
    words = re.sub(r"([A-Z])", r"_\1", text).lower()
    return re.sub(r"[^a-z0-9]+", "_", words).strip("_")


@cache
def _cur1() -> list[DemoColumn]:
    columns = []
    for name, row in _table("cur1"):
        attribute = f"attributes[{literal(name)}]" if row["family"] == "product" else "NULL"
        columns.append(
            DemoColumn(f"{row['family']}/{name}", row["type"], row["value"] or attribute)
        )
    return columns


def _table(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every column's name with its line, in which the map of a family has become SQL."""
    path = Path(__file__).with_name(f"{name}.csv")
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if "map" in row["type"] and row["value"] in _FAMILIES:
                row["value"] = _family_map(row["value"])
            for column in row["names"].split("|"):
                yield column, row


def _family_map(family: str) -> str:
    """Return the SQL of a map with a charge's filled columns of a family, by Athena's names."""
    values = {
        athena_name(column.name.partition("/")[2]): column.value
        for column in _cur1()
        if column.family == family
    }
    pairs = (f"{{'key': {literal(key)}, 'value': {values[key]}}}" for key in sorted(values))
    return f"map_without_nulls([{', '.join(pairs)}])"
