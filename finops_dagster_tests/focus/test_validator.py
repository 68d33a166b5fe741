"""What the foundation's validator says of charges written by hand, good and broken."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from finops_dagster_tests.focus.broken_charges import broken_charges, rules_broken_by
from finops_dagster_tests.focus.charges import (
    good_charges,
    marketplace_purchase,
    purchase_for_its_month,
    write_charges,
)
from finops_dagster_tests.focus.known_false import KNOWN_FALSE, wrong_rules
from finops_dagster_tests.focus.validator import judge, needs_validator

GOOD = tuple(good_charges().values())


@pytest.mark.thorough
@needs_validator
def test_good_charges(tmp_path: Path) -> None:
    """Every rule that looks at a charge passes, but for one of the alternatives of InvoiceId."""
    charges = write_charges(tmp_path / "charges.parquet", GOOD)
    judgment = judge(charges, tmp_path)
    assert judgment.failures == {"InvoiceId-C-004-C": len(GOOD)}
    assert judgment.checked > 350
    assert wrong_rules(charges, judgment) == {}


@pytest.mark.thorough
@needs_validator
def test_broken_charges(tmp_path: Path) -> None:
    """Each broken charge is found, by the rules that it breaks and no other."""
    broken = broken_charges()
    rows = [*GOOD, *(charge.columns for charge in broken)]
    charges = write_charges(tmp_path / "charges.parquet", rows)
    judgment = judge(charges, tmp_path)
    expected = rules_broken_by(broken)
    assert wrong_rules(charges, judgment) == expected
    assert judgment.failures == expected | {"InvoiceId-C-004-C": len(rows)}


@needs_validator
@pytest.mark.thorough
def test_month_that_is_invoiced_in_part(tmp_path: Path) -> None:
    """Each part is judged by the rules of InvoiceId, and all of it by the others."""
    open_charges = [{**charge, "InvoiceId": None} for charge in GOOD[:5]]
    wrong_type = {**GOOD[0], "ServiceSubcategory": "Containers", "InvoiceId": None}
    charges = write_charges(tmp_path / "charges.parquet", [*GOOD, *open_charges, wrong_type])
    judgment = judge(charges, tmp_path)
    assert judgment.failures == {
        "InvoiceId-C-004-C": len(GOOD),
        "InvoiceId-C-005-C": len(open_charges) + 1,
        "ServiceName-C-008-C": 1,
    }
    assert wrong_rules(charges, judgment) == {"ServiceName-C-008-C": 1}


@needs_validator
@pytest.mark.thorough
def test_known_false_rules(tmp_path: Path) -> None:
    """They are let pass where their reason holds of all charges that they find, and only there."""
    right = [*GOOD, purchase_for_its_month(), marketplace_purchase()]
    charges = write_charges(tmp_path / "right.parquet", right)
    judgment = judge(charges, tmp_path / "right")
    rules = {"BilledCost-C-005-C": 1, "EffectiveCost-C-005-C": 2}
    assert judgment.failures == {"InvoiceId-C-004-C": len(right), **rules}
    assert wrong_rules(charges, judgment) == {}

    wrong = {**marketplace_purchase(), "PublisherName": "Cloud", "EffectiveCost": Decimal(28)}
    charges = write_charges(tmp_path / "wrong.parquet", [*right, wrong])
    judgment = judge(charges, tmp_path / "wrong")
    assert wrong_rules(charges, judgment) == {"BilledCost-C-005-C": 2, "EffectiveCost-C-005-C": 3}


@needs_validator
@pytest.mark.thorough
def test_charge_without_an_end(tmp_path: Path) -> None:
    """The validator drops a column of times that has a null, and then misses all of it."""
    charges = write_charges(
        tmp_path / "charges.parquet", [*GOOD, {**GOOD[0], "ChargePeriodEnd": None}]
    )
    present, *others = wrong_rules(charges, judge(charges, tmp_path))
    assert present == "CostAndUsage-D-028-M"
    assert {rule.partition("-")[0] for rule in others} == {"ChargePeriodEnd"}


def test_known_false_rules_are_few() -> None:
    """A new one needs a source, and a look at whether our data are wrong instead."""
    assert Counter(known.rule for known in KNOWN_FALSE) == Counter(
        "InvoiceId-C-004-C InvoiceId-C-005-C BilledCost-C-005-C EffectiveCost-C-005-C".split()
    )
    assert all(known.source.startswith("https://") for known in KNOWN_FALSE)
