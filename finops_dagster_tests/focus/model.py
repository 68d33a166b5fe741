"""The foundation's model of FOCUS 1.2, with what is wrong in it corrected.

The model is data: JSON that focus-validator is installed with. Errata of it have been published
since, and mistakes reported. Each correction has its source here. The last one writes around a
mistake of the validator, which finds hardly any value that is not allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Check = dict[str, Any]
Model = dict[str, Any]

_SPECIFICATION = "https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec"
_ERRATA = f"{_SPECIFICATION}/blob/HEAD/ERRATA.md"
_VALIDATOR = "https://github.com/finopsfoundation/focus_validator"


@dataclass(frozen=True)
class Erratum:
    """What a part of a rule should be: its Requirement, its Condition or its Dependencies."""

    rule: str
    part: str
    correction: Check | list[str]
    source: str


def _check(function: str, column: str, value: str | None) -> Check:
    return {"CheckFunction": function, "ColumnName": column, "Value": value}


def _is(column: str, value: str | None) -> Check:
    return _check("CheckValue", column, value)


def _is_not(column: str, value: str | None) -> Check:
    return _check("CheckNotValue", column, value)


def _all_of(*checks: Check) -> Check:
    return {"CheckFunction": "AND", "Items": list(checks)}


def _any_of(*checks: Check) -> Check:
    return {"CheckFunction": "OR", "Items": list(checks)}


ERRATA = (
    Erratum(
        "CommitmentDiscountStatus-C-005-M",
        "Requirement",
        _any_of(*(_is("CommitmentDiscountStatus", status) for status in ("Used", "Unused"))),
        f"{_ERRATA} 1.2 #3, {_SPECIFICATION}/pull/2422",
    ),
    Erratum(
        "CommitmentDiscountStatus-C-004-C",
        "Condition",
        _all_of(_is_not("CommitmentDiscountId", None), _is("ChargeCategory", "Usage")),
        f"{_SPECIFICATION}/issues/2393, {_SPECIFICATION}/pull/2622",
    ),
    Erratum(
        "CapacityReservationStatus-C-003-C",
        "Condition",
        _is("CapacityReservationId", None),
        f"{_VALIDATOR}/issues/142, {_SPECIFICATION}/pull/2622",
    ),
    Erratum(
        "CapacityReservationStatus-C-004-C",
        "Condition",
        _all_of(_is_not("CapacityReservationId", None), _is("ChargeCategory", "Usage")),
        f"{_VALIDATOR}/issues/142, {_SPECIFICATION}/pull/2622",
    ),
    *(
        Erratum(
            rule,
            "Dependencies",
            ["CommitmentDiscountQuantity-C-003-C"],
            f"{_ERRATA} 1.2 #4, {_SPECIFICATION}/pull/2609",
        )
        for rule in ("CommitmentDiscountUnit-C-005-C", "CommitmentDiscountUnit-C-006-C")
    ),
    # Its sentence is of charges that are no corrections, its condition of those that are.
    Erratum(
        "ConsumedQuantity-C-006-C",
        "Condition",
        _is_not("ChargeClass", "Correction"),
        f"not reported; the sentence is of {_SPECIFICATION}/pull/798",
    ),
    # It needs the name and the type, as SubAccountName-C-003-C does; not one of them.
    Erratum(
        "SubAccountType-C-003-C",
        "Requirement",
        _all_of(
            *(
                {"CheckFunction": "CheckModelRule", "ModelRuleId": f"SubAccountType-{rule}"}
                for rule in ("C-004-C", "C-005-C")
            )
        ),
        "not reported; SubAccountName-C-003-C",
    ),
)


def corrected(model: Model) -> Model:
    """Return the model with its errata, changed in place."""
    for erratum in ERRATA:
        criteria = model["ModelRules"][erratum.rule]["ValidationCriteria"]
        assert criteria[erratum.part] != erratum.correction, f"{erratum.rule} is corrected already"
        criteria[erratum.part] = erratum.correction
    for rule in model["ModelRules"].values():
        _correct_nulls(rule["ValidationCriteria"]["Condition"])
        _correct_alternatives(rule["ValidationCriteria"])
    return model


def _correct_nulls(condition: Check) -> None:
    """Let "is not Correction" hold of a charge without a class.

    In the model it does not, so that fourteen rules, among them those that multiply prices, look
    at no charge at all: https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec/issues/2681
    """
    for item in condition.get("Items", []):
        _correct_nulls(item)
    if condition.get("CheckFunction") == "CheckNotValue" and condition["Value"] is not None:
        original = dict(condition)
        condition.clear()
        condition |= _any_of(original, _is(original["ColumnName"], None))


def _correct_alternatives(criteria: dict[str, Any]) -> None:
    """Say "one of these values" as "null, where it is none of these values".

    To the validator the first holds if it holds of one charge of the file: it finds a wrong value
    only where all are wrong. It checks the second charge by charge.
    """
    requirement = criteria["Requirement"]
    if requirement.get("CheckFunction") != "OR" or "ModelRuleId" in requirement["Items"][0]:
        return
    alternatives = [item.get("Items", [item]) for item in requirement["Items"]]
    others = [
        _any_of(*(_is_not(check["ColumnName"], check["Value"]) for check in checks))
        for checks in alternatives
    ]
    assert not criteria["Condition"]
    criteria["Requirement"] = _is(alternatives[0][0]["ColumnName"], None)
    criteria["Condition"] = _all_of(*others)
