"""The rules of FOCUS's model that call right charges wrong, and the charges that they are wrong of.

A failure of the validator is let pass only where the reason holds of each of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from finops_dagster_tests.focus.validator import Judgment

_SPECIFICATION = "https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec"


@dataclass(frozen=True)
class KnownFalse:
    """A rule that is false of some charges.

    `breaks` is true of the rows that break the rule as the model has it, `reason` of those that are
    right nevertheless: both are SQL.
    """

    rule: str
    breaks: str
    reason: str
    why: str
    source: str


def _is_provider(company: str) -> str:
    """Return SQL for whether a company is the provider, also under the name of a subsidiary."""
    return f"""({company} = ProviderName OR (ProviderName, split_part({company}, ' ', 1)) IN
        (('AWS', 'Amazon'), ('AWS', 'AWS'), ('Microsoft', 'Microsoft')))"""


KNOWN_FALSE = (
    KnownFalse(
        "InvoiceId-C-004-C",
        breaks="InvoiceId IS NOT NULL",
        reason="InvoiceId IS NOT NULL",
        why="Wants no id where there is no invoice. It is one of two alternatives, checked alone.",
        source=f"{_SPECIFICATION}/issues/2394",
    ),
    KnownFalse(
        "InvoiceId-C-005-C",
        breaks="InvoiceId IS NULL",
        reason="InvoiceId IS NULL",
        why="Wants an id where there is an invoice. It is one of two alternatives, checked alone.",
        source=f"{_SPECIFICATION}/issues/2394",
    ),
    KnownFalse(
        "BilledCost-C-005-C",
        breaks="BilledCost <> 0 AND ProviderName <> InvoiceIssuerName",
        # The issuer is the provider, or the charge is a seller's.
        reason=f"{_is_provider('InvoiceIssuerName')} OR NOT {_is_provider('PublisherName')}",
        why="Wants nothing billed where another company is paid, and compares names to know that.",
        source=f"{_SPECIFICATION}/pull/1966",
    ),
    KnownFalse(
        "EffectiveCost-C-005-C",
        breaks="EffectiveCost <> 0 AND ChargeCategory = 'Purchase'",
        reason="CommitmentDiscountId IS NULL AND EffectiveCost = BilledCost",
        why="Wants 0 of a purchase for later charges, and takes every purchase for one.",
        source=f"{_SPECIFICATION}/issues/2673",
    ),
)


def wrong_rules(charges: Path, judgment: Judgment) -> dict[str, int]:
    """Return the failures of the validator that count: the number of charges, by rule.

    Left out is each rule of KNOWN_FALSE whose `reason` is true of all charges that break it.
    """
    passed = set(_known_false(charges, judgment))
    return {rule: rows for rule, rows in judgment.failures.items() if rule not in passed}


def _known_false(charges: Path, judgment: Judgment) -> Iterator[str]:
    with duckdb.connect() as connection:
        rows = connection.read_parquet(str(charges))
        for known in KNOWN_FALSE:
            broken = rows.filter(known.breaks)
            counts = broken.aggregate(f"count(*), count(*) FILTER ({known.reason})").fetchall()
            if counts[0] == (judgment.failures.get(known.rule),) * 2:
                yield known.rule
