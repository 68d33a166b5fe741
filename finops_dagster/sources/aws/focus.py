"""AWS FOCUS 1.0 and 1.2: a Data Export in the columns of the FinOps Open Cost and Usage
Specification, PascalCase, which the table has in lower case.

`BilledCost` adds up to the invoice, `EffectiveCost` spreads prepaid cost over its use; the two are
never to be added. https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-focus-1-0-aws.html
"""

from __future__ import annotations

from typing import ClassVar

from finops_dagster.billing.columns import SqlType
from finops_dagster.sources.aws.data_exports import DataExport

_COSTS = "billedcost contractedcost effectivecost listcost pricingcurrencyeffectivecost".split()
_PRICES_AND_QUANTITIES = """
    contractedunitprice listunitprice
    pricingcurrencycontractedunitprice pricingcurrencylistunitprice
    commitmentdiscountquantity consumedquantity pricingquantity
""".split()
_TIMES = "billingperiodstart billingperiodend chargeperiodstart chargeperiodend".split()
_MAPS = "tags x_costcategories skupricedetails".split()


class AwsFocus(DataExport):
    """FOCUS as AWS exports it; the versions differ in their columns alone."""

    name = "focus"
    title = "FOCUS"
    null_words = ("NULL",)  # so the specification's own sample data
    cost = "billedcost"
    money = frozenset({*_COSTS, "x_discounts"})
    billing_period = "billingperiodstart"
    usage_start = "chargeperiodstart"
    service = "servicename"
    account = "subaccountid"
    currency = "billingcurrency"
    invoice = "invoiceid"
    types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys([*_COSTS, *_PRICES_AND_QUANTITIES], SqlType.MONEY),
        **dict.fromkeys(_TIMES, SqlType.TIME),
        **dict.fromkeys(_MAPS, SqlType.TEXT_MAP),
        "x_discounts": SqlType.MONEY_MAP,
    }
