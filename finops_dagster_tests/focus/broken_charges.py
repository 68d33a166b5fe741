"""Charges of which each breaks rules of FOCUS's model, read from `broken_charges.csv`.

A line of the file has a good charge, the columns that are changed in it (with nothing after `=`
for null), and the ids of the rules that it breaks then. A rule that looks at several charges, such
as one category a service, is broken by the changed charge together with the good ones.

The model's rule PricingCurrencyEffectiveCost-C-004-M reads PricingCurrencyListUnitPrice by mistake.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from finops_dagster_tests.focus.charges import SCHEMA, Charge, good_charges


@dataclass(frozen=True)
class BrokenCharge:
    """A charge with all its columns, and the rules that it breaks."""

    columns: Charge
    rules: tuple[str, ...]


def broken_charges() -> list[BrokenCharge]:
    """Return the charges, in the order of the file."""
    good = good_charges()
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return [
            BrokenCharge(
                {**good[row["charge"]], **_columns(row["changes"])}, tuple(row["rules"].split())
            )
            for row in csv.DictReader(file)
        ]


def rules_broken_by(charges: Iterable[BrokenCharge]) -> Counter[str]:
    """Return how many of the charges break a rule, by rule."""
    return Counter(rule for charge in charges for rule in charge.rules)


def _columns(changes: str) -> Charge:
    pairs = (change.split("=", maxsplit=1) for change in changes.split("; "))
    return {column: _value(SCHEMA.field(column).type, text) for column, text in pairs}


def _value(column_type: pa.DataType, text: str) -> object:
    if not text:
        return None
    if pa.types.is_map(column_type):
        return json.loads(text)
    return Decimal(text) if pa.types.is_decimal(column_type) else text
