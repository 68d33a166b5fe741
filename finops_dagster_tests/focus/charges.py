"""FOCUS 1.2 charges written by hand: a bill that keeps every rule, for tests to break.

`good_charges` has one charge of each kind, by name; a test changes its columns, and writes the
charges with `write_charges`, or makes a table of them with `charges_table`. The two purchases
apart are right, but the specification's model calls them wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa

from finops_dagster.focus.specification import FocusType, Specification

Charge = dict[str, object]

_TYPES = {
    FocusType.TEXT: pa.string(),
    FocusType.DECIMAL: pa.decimal128(38, 18),
    FocusType.TIME: pa.timestamp("us"),
    FocusType.JSON: pa.map_(pa.string(), pa.string()),
}
SCHEMA = pa.schema(
    [(column.name, _TYPES[column.type]) for column in Specification.load("1.2").columns]
)

_HOUR, _DAY, _MONTH = timedelta(hours=1), timedelta(days=1), timedelta(days=31)
_START = datetime(2026, 1, 1)
_COMPUTE: Charge = {
    "ServiceCategory": "Compute",
    "ServiceName": "Elastic Compute",
    "ServiceSubcategory": "Virtual Machines",
    "SkuId": "SKU-M5",
    "SkuMeter": "m5.large",
    "SkuPriceId": "SKU-M5.HOUR",
    "SkuPriceDetails": {"InstanceType": "m5.large", "x_tenancy": "shared"},
    "ResourceId": "i-0001",
    "ResourceName": "web-1",
    "ResourceType": "Virtual Machine",
    "PricingUnit": "Hours",
}
_RESERVATION: Charge = {
    "CommitmentDiscountId": "reservation-7",
    "CommitmentDiscountName": "web",
    "CommitmentDiscountCategory": "Usage",
    "CommitmentDiscountType": "Reserved Instance",
    "CommitmentDiscountUnit": "Hours",
}
_SAVINGS_PLAN: Charge = {
    "CommitmentDiscountId": "savings-plan-3",
    "CommitmentDiscountName": "all compute",
    "CommitmentDiscountCategory": "Spend",
    "CommitmentDiscountType": "Savings Plan",
    "CommitmentDiscountUnit": "USD",
}


def good_charges() -> dict[str, Charge]:
    """Return a bill of January 2026 that keeps every rule: its charges by what they are."""
    return {
        **_usage(),
        **_reservation(),
        **_savings_plan(),
        **_capacity_reservation(),
        **_other_categories(),
    }


def purchase_for_its_month() -> Charge:
    """Return a fee that covers nothing later, so that its effective cost is its billed cost."""
    support = {"ServiceCategory": "Other", "ServiceSubcategory": "Other (Other)"}
    fee = _purchase("29", ServiceName="Support", SkuId="SUPPORT", SkuPriceId="SUPPORT.MONTH")
    return {**fee, **support, "SkuMeter": "Support", "EffectiveCost": Decimal(29)}


def marketplace_purchase() -> Charge:
    """Return a fee that the provider bills for a seller, through a company of another name."""
    charge = purchase_for_its_month()
    seller = {"InvoiceIssuerName": "Cloud Europe Ltd", "PublisherName": "Seller"}
    return {**charge, **seller, "ServiceName": "Monitoring from the marketplace"}


def charges_table(connection: duckdb.DuckDBPyConnection, charges: Iterable[Charge]) -> str:
    """Create or replace a table of the charges, and return its name."""
    rows = pa.Table.from_pylist(list(charges), schema=SCHEMA)
    connection.register("rows_of_charges", rows)
    connection.execute("CREATE OR REPLACE TABLE charges AS FROM rows_of_charges")
    connection.unregister("rows_of_charges")
    return "charges"


def write_charges(path: Path, charges: Iterable[Charge]) -> Path:
    """Write the charges as the Parquet file that the lake would have."""
    with duckdb.connect() as connection:
        connection.table(charges_table(connection, charges)).write_parquet(str(path))
    return path


def _charge(start: datetime, length: timedelta, **columns: object) -> Charge:
    return {
        "BillingAccountId": "001234567890",
        "BillingAccountName": "Acme",
        "BillingAccountType": "Management Account",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _START,
        "BillingPeriodEnd": _START + _MONTH,
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + length,
        "ChargeDescription": "m5.large in Ireland",
        "InvoiceId": "INVOICE-1",
        "InvoiceIssuerName": "Cloud",
        "PricingCurrency": "USD",
        "ProviderName": "Cloud",
        "PublisherName": "Cloud",
        "RegionId": "eu-west-1",
        "RegionName": "Ireland",
        "SubAccountId": "002345678901",
        "SubAccountName": "web",
        "SubAccountType": "Account",
        "Tags": {"team": "web"},
        **_COMPUTE,
        **columns,
    }


def _costs(billed: str, effective: str, contracted: str, listed: str, quantity: str) -> Charge:
    """Return the costs, the quantity, and the prices that multiply to them."""
    price = Decimal(listed) / Decimal(quantity)
    return {
        "BilledCost": Decimal(billed),
        "EffectiveCost": Decimal(effective),
        "PricingCurrencyEffectiveCost": Decimal(effective),
        "ContractedCost": Decimal(contracted),
        "ContractedUnitPrice": Decimal(contracted) / Decimal(quantity),
        "PricingCurrencyContractedUnitPrice": Decimal(contracted) / Decimal(quantity),
        "ListCost": Decimal(listed),
        "ListUnitPrice": price,
        "PricingCurrencyListUnitPrice": price,
        "PricingQuantity": Decimal(quantity),
    }


def _used(costs: Charge, category: str = "Standard", length: timedelta = _HOUR) -> Charge:
    consumed = {"ConsumedQuantity": costs["PricingQuantity"], "ConsumedUnit": "Hours"}
    kind = {"ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based"}
    return {**_charge(_START, length), **costs, **consumed, **kind, "PricingCategory": category}


def _purchase(fee: str, **columns: object) -> Charge:
    costs = {**_costs(fee, "0", fee, fee, "1"), "PricingUnit": "Units", "PricingCategory": "Other"}
    kind = {"ChargeCategory": "Purchase", "ChargeFrequency": "Recurring"}
    charge = {**_charge(_START, _MONTH), **costs, **kind, **columns}
    return {**charge, **_commitment_as_resource(charge)}


def _commitment_as_resource(charge: Charge) -> Charge:
    """Return the resource of a purchase, and of what nobody used: the commitment, if any."""
    return {
        "ResourceId": charge.get("CommitmentDiscountId"),
        "ResourceName": charge.get("CommitmentDiscountName"),
        "ResourceType": charge.get("CommitmentDiscountType"),
    }


def _usage() -> dict[str, Charge]:
    storage = {
        "ServiceCategory": "Storage",
        "ServiceName": "Blocks",
        "ServiceSubcategory": "Block Storage",
        "SkuId": "SKU-GP3",
        "SkuMeter": "gp3",
        "SkuPriceId": "SKU-GP3.MONTH",
        "SkuPriceDetails": None,
        "PricingUnit": "GB-Months",
        "Tags": None,
    }
    return {
        "usage": _used(_costs("0.09", "0.09", "0.09", "0.1", "1")),
        "spot usage": _used(_costs("0.03", "0.03", "0.03", "0.1", "1"), "Dynamic"),
        "storage": {
            **_used(_costs("0.8", "0.8", "0.8", "0.8", "10"), length=_DAY),
            **storage,
            "ConsumedUnit": "GB-Months",
        },
        "usage for nothing": _used(_costs("0", "0", "0", "0", "3")),
    }


def _reservation() -> dict[str, Charge]:
    """A reservation of 744 hours for 74.4 a month: 700 hours are used."""
    used = {**_RESERVATION, "CommitmentDiscountStatus": "Used"}
    quantity = "CommitmentDiscountQuantity"
    return {
        "reservation purchase": _purchase("74.4", **_RESERVATION, **{quantity: Decimal(744)}),
        "reservation used": {
            **_used(_costs("0", "70", "140", "140", "700"), "Committed", _MONTH),
            **used,
            quantity: Decimal(700),
        },
        "reservation unused": {
            **_used(_costs("0", "4.4", "0", "0", "44"), "Committed", _MONTH),
            **_unused(_RESERVATION),
            quantity: Decimal(44),
        },
    }


def _savings_plan() -> dict[str, Charge]:
    """A savings plan of 10 for a day, paid at once: 9 of it is used."""
    used = {**_SAVINGS_PLAN, "CommitmentDiscountStatus": "Used"}
    quantity = "CommitmentDiscountQuantity"
    fee = _purchase("10", **_SAVINGS_PLAN, **{quantity: Decimal(10)})
    return {
        "savings plan purchase": {**fee, "ChargeFrequency": "One-Time"},
        "savings plan used": {
            **_used(_costs("0", "9", "12", "12.5", "125"), "Committed", _DAY),
            **used,
            quantity: Decimal(9),
        },
        "savings plan unused": {
            **_used(_costs("0", "1", "0", "0", "1"), "Committed", _DAY),
            **_unused(_SAVINGS_PLAN),
            quantity: Decimal(1),
        },
    }


def _capacity_reservation() -> dict[str, Charge]:
    """Only what a commitment leaves unused has no consumed quantity: this has one."""
    reservation = {"CapacityReservationId": "cr-1", "AvailabilityZone": "eu-west-1a"}
    hour = {**_used(_costs("0.1", "0.1", "0.1", "0.1", "1")), **reservation}
    return {
        "capacity used": {**hour, "CapacityReservationStatus": "Used"},
        "capacity unused": {**hour, "CapacityReservationStatus": "Unused"},
    }


def _unused(commitment: Charge) -> Charge:
    nothing = {"ConsumedQuantity": None, "ConsumedUnit": None}
    status = {"CommitmentDiscountStatus": "Unused"}
    return {**commitment, **_commitment_as_resource(commitment), **nothing, **status}


def _other_categories() -> dict[str, Charge]:
    cost = {"PricingCategory": None, **_costs("-1", "-1", "-1", "-1", "1")}
    without_price = dict.fromkeys(
        "ContractedUnitPrice ListUnitPrice PricingCurrencyContractedUnitPrice PricingUnit SkuId "
        "PricingCurrencyListUnitPrice PricingQuantity SkuMeter SkuPriceDetails SkuPriceId".split()
    )
    bare = {**_charge(_START, _MONTH, ChargeFrequency="Recurring"), **cost, **without_price}
    correction = _used(_costs("-0.5", "-0.5", "-0.5", "-0.5", "1"))
    return {
        "tax": {**bare, **_cost("19.01"), "ChargeCategory": "Tax"},
        "credit": {**bare, "ChargeCategory": "Credit"},
        "adjustment": {**bare, **_cost("0.000000000000000001"), "ChargeCategory": "Adjustment"},
        "correction": {**correction, **without_price, "ChargeClass": "Correction"},
    }


def _cost(amount: str) -> Charge:
    costs = "BilledCost EffectiveCost PricingCurrencyEffectiveCost ContractedCost ListCost"
    return dict.fromkeys(costs.split(), Decimal(amount))
