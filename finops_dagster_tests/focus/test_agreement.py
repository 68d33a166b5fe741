"""Our rules against the foundation's: on good charges, and on charges broken rule by rule.

`test_validator.py` shows that its validator finds the rules of `broken_charges.csv` broken, and no
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.focus.conformance import BrokenRule, find_broken_rules
from finops_dagster.focus.rules import ChargeRule, rules_of
from finops_dagster.focus.specification import Specification
from finops_dagster_tests.focus.broken_charges import BrokenCharge, broken_charges
from finops_dagster_tests.focus.charges import Charge, charges_table, good_charges

# The model has it read a column that it is not about.
MISTAKEN = {"PricingCurrencyEffectiveCost-C-004-M"}


def broken_rules(charges: Iterable[Charge] = ()) -> Sequence[BrokenRule]:
    """Return our rules that charges break beside the good ones."""
    with duckdb.connect() as connection:
        table = charges_table(connection, [*good_charges().values(), *charges])
        return find_broken_rules(connection, Sql(table))


def test_good_charges() -> None:
    assert broken_rules() == []


def test_all_broken_charges() -> None:
    """A rule of ours finds as many charges as break one of the model's rules that it covers."""
    charges = broken_charges()
    found = {
        broken.rule.id: broken.rows
        for broken in broken_rules(charge.columns for charge in charges)
        if isinstance(broken.rule, ChargeRule)
    }
    expected = Counter(
        rule.id
        for rule in rules_of(Specification.load("1.2"))
        for charge in charges
        if isinstance(rule, ChargeRule)
        and not (set(rule.model_ids) - MISTAKEN).isdisjoint(charge.rules)
    )
    assert found == expected


@pytest.mark.thorough
@pytest.mark.parametrize("charge", broken_charges(), ids=lambda charge: charge.rules[0])
def test_broken_charges_one_by_one(charge: BrokenCharge) -> None:
    """Each rule of the model is found by a rule of ours, and ours find nothing else."""
    broken = [set(broken.rule.model_ids) for broken in broken_rules([charge.columns])]
    assert set().union(*broken) >= set(charge.rules)
    assert all(ids & set(charge.rules) for ids in broken)
