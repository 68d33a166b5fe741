"""The columns of FOCUS, the FinOps Open Cost and Usage Specification, in every vendor's export.

A vendor has its own columns too (`x_...`), and may lag behind in names and in columns.
https://focus.finops.org/focus-columns/
"""

from __future__ import annotations

from typing import ClassVar

from finops_dagster.billing.columns import SqlType

COSTS = ("billedcost contractedcost effectivecost listcost pricingcurrencyeffectivecost").split()
_PRICES_AND_QUANTITIES = (
    "contractedunitprice listunitprice pricingcurrencycontractedunitprice "
    "pricingcurrencylistunitprice commitmentdiscountquantity consumedquantity pricingquantity"
).split()
_TIMES = "billingperiodstart billingperiodend chargeperiodstart chargeperiodend".split()


class FocusColumns:
    """The names and types of the columns: names are those of the files, in lower case.

    `BilledCost` adds up to the invoice, `EffectiveCost` spreads prepaid cost over its use: never
    add the two.
    """

    cost = "billedcost"
    billing_period = "billingperiodstart"
    usage_start = "chargeperiodstart"
    service = "servicename"
    account = "subaccountid"
    currency = "billingcurrency"
    invoice = "invoiceid"
    known_types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys([*COSTS, *_PRICES_AND_QUANTITIES], SqlType.MONEY),
        **dict.fromkeys(_TIMES, SqlType.TIME),
        **dict.fromkeys(["tags", "skupricedetails"], SqlType.TEXT_MAP),
    }
