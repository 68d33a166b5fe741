"""A small mapping to FOCUS, for tests of the stages: a charge for each line item but taxes."""

from finops_dagster.billing.columns import SqlType
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Input, Kind
from finops_dagster_tests.cur import line_item


def small_mapping(name: str = "small", *, moved: str = "taxes are no charges here") -> FocusMapping:
    """Return a mapping of the tests' CUR v1.

    Line items of the service Tax are left out, which the mapping declares only if `moved` says why.
    """
    return FocusMapping(
        name,
        [
            Input("cost", SqlType.MONEY, ("lineitem_unblendedcost",)),
            Input("service", spellings=("lineitem_productcode",)),
            Input("id", spellings=("identity_lineitemid",)),
            Input("account", spellings=("bill_payeraccountid",)),
        ],
        [
            Kind("tax", "service = 'Tax'", moved=moved),
            Kind("other", "true", (Charge("usage"),)),
        ],
        {
            "BilledCost": Expression("cost"),
            "EffectiveCost": Expression("cost"),
            "ListCost": Expression("cost"),
            "ContractedCost": Expression("cost"),
            "BillingCurrency": Expression("'USD'"),
            "BillingAccountId": Expression("account"),
            "ChargeCategory": Expression("'Usage'"),
            "ServiceCategory": Expression("'Compute'"),
            "ServiceName": Expression("service"),
            "Tags": Expression("MAP {'service': service}"),
        },
        headline="cost",
        amortized="cost",
        currency="'USD'",
        line_items="[id]",
    )


def taxed(*costs: str, tax: str) -> list[dict[str, str]]:
    """Return line items of these costs, and one of the tax."""
    rows = [line_item("2024-01", lineItem__UnblendedCost=cost) for cost in costs]
    tax_row = {"lineItem__UnblendedCost": tax, "lineItem__ProductCode": "Tax"}
    return [*rows, line_item("2024-01", **tax_row)]
