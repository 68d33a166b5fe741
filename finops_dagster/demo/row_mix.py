"""Which meter each of 1,000 rows of an example bill is, in which region, at which rate.

A bill is the same mix at every size, and what is paid once for many rows (a Savings Plan, a
reservation) adds up inside each 1,000. Money and quantities are whole ticks of 1e-10, the smallest
step AWS prints, so that no sum depends on the order of the rows or on the machine.
"""

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import cache
from hashlib import sha256

from finops_dagster.demo.catalog import (
    NOWHERE,
    PAYER_ACCOUNT,
    REGION_CYCLE,
    REGIONS,
    Meter,
    Region,
    Service,
)
from finops_dagster.demo.meters import LATE_METERS, METERS

TICKS = 10**10  # in one dollar, one hour, one request
SAVINGS_PLAN_PERCENT = 72  # of the On Demand rate
RESERVATION_PERCENT = 60
_FIRST_MONTH = date(2023, 1, 1)  # where the growth of a service counts from

PLAN_ARNS = (
    f"arn:aws:savingsplans::{PAYER_ACCOUNT}:savingsplan/5f0c7a52-81c4-4f0e-9d3b-2a6e1c9b7d10",
    f"arn:aws:savingsplans::{PAYER_ACCOUNT}:savingsplan/b18e4d36-07aa-4c58-8e21-f39d50c6ab74",
)
RESERVATION_ARNS = {
    "AmazonEC2": f"arn:aws:ec2:us-east-1:{PAYER_ACCOUNT}:reserved-instances/7d20c1f4-52be-4f38",
    "AmazonRDS": f"arn:aws:rds:us-east-1:{PAYER_ACCOUNT}:ri:orders-and-payments-pg",
}


@dataclass(frozen=True)
class PlannedRow:
    """One row's meter and place; `occurrence` counts the meter's rows, from 0.

    A row that is `behind` offsets the row before it and has that row's account, time and quantity.
    """

    meter: Meter
    region: Region
    occurrence: int
    behind: bool = False

    @property
    def rate(self) -> int:
        """The On Demand rate here, in ticks per unit."""
        return ticks(self.meter.rate) * self.region.price // 1000

    @property
    def commitment(self) -> str | None:
        """The ARN of the Savings Plan or reservation that the row uses or pays for."""
        if self.meter.kind.startswith("SavingsPlan"):
            return PLAN_ARNS[self.occurrence % 2]
        if self.meter.kind in ("DiscountedUsage", "RIFee"):
            return RESERVATION_ARNS[self.meter.service.product_code]
        return None


@cache
def ticks(number: str) -> int:
    """Return a decimal number as ticks of 1e-10."""
    return int(Decimal(number) * TICKS)


@cache
def token(text: str, length: int, alphabet: str = "ABCDEFGHJKMNPQRSTUVWXYZ23456789") -> str:
    """Return `length` characters that are always the same for one text (a SKU, an invoice id)."""
    digest = sha256(text.encode()).digest()
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


def planned_rows() -> list[PlannedRow]:
    """Return the 1,000 rows in the order they repeat.

    A meter's rows are spread evenly, so that a short bill is a fair sample of a long one; a row
    that offsets another comes right after it.
    """
    turns = sorted(
        ((occurrence + (number * 7 % 17 + 0.5) / 17) / meter.share, number, occurrence)
        for number, meter in enumerate(METERS)
        for occurrence in range(meter.share)
    )
    rows: list[PlannedRow] = []
    for _, number, occurrence in turns:
        meter = METERS[number]
        row = PlannedRow(meter, _region(meter, number + occurrence), occurrence)
        rows.append(row)
        if meter.follower:
            rows.append(replace(row, meter=_offsetting(meter, meter.follower), behind=True))
    return rows


def late_rows() -> list[PlannedRow]:
    """Return what AWS adds to a month after its end: one row of each late refund and credit."""
    return [PlannedRow(meter, NOWHERE, 0) for meter in LATE_METERS]


def commitments_used(rows: list[PlannedRow]) -> dict[str, int]:
    """Return what the rows use of each Savings Plan and reservation, in ticks of USD, by ARN."""
    percents = {
        "SavingsPlanCoveredUsage": SAVINGS_PLAN_PERCENT,
        "DiscountedUsage": RESERVATION_PERCENT,
    }
    used: dict[str, int] = {}
    for row in rows:
        if row.commitment and row.meter.kind in percents:
            cost = row.rate * percents[row.meter.kind] // 100
            used[row.commitment] = used.get(row.commitment, 0) + cost
    return used


def growth(service: Service, month: date, seed: int) -> int:
    """Return a service's usage in a month, per mille of January 2023, with a wobble of 2 %."""
    months = (month.year - _FIRST_MONTH.year) * 12 + month.month - _FIRST_MONTH.month
    trend = min(max(1000 + service.growth * months, 300), 8000)
    noise = int(sha256(f"{seed}/{service.product_code}/{month}".encode()).hexdigest()[:8], 16)
    return trend * (980 + noise % 41) // 1000


def _region(meter: Meter, turn: int) -> Region:
    """Return the region of a meter's next row."""
    return NOWHERE if "global" in meter.flags else REGIONS[REGION_CYCLE[turn % len(REGION_CYCLE)]]


def _offsetting(meter: Meter, kind: str) -> Meter:
    """Return the meter of the row that takes back a row's cost, or a part of it."""
    texts = {
        "SavingsPlanNegation": f"SavingsPlanNegation used by AccountId : {PAYER_ACCOUNT} and"
        " UsageSku : {sku}",
        "EdpDiscount": 'Enterprise Program Discount, "private pricing"',
    }
    return replace(meter, kind=kind, description=texts[kind], resource=None)
