"""The constant cells of each of the 1,000 repeating rows of an example CUR v1 bill, by header.

A slot is a row before it is dated and measured: row `i` of a bill is slot `i % 1000`.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache

from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.catalog import AWS_ENTITY, PAYER_ACCOUNT
from finops_dagster.demo.row_mix import (
    RESERVATION_ARNS,
    RESERVATION_PERCENT,
    SAVINGS_PLAN_PERCENT,
    TICKS,
    PlannedRow,
    commitments_used,
    growth,
    late_rows,
    planned_rows,
    ticks,
    token,
)

SLOTS = 1000
EDP_PERCENT = 6  # off the On Demand cost
NO_LIMIT = 2**62
USED_PERCENT = 96  # of a commitment; the rest is paid for nothing
_OFFSETS = {"SavingsPlanNegation": -100, "EdpDiscount": -EDP_PERCENT, "DiscountedUsage": 0}
_LISTED = ("Usage", "DiscountedUsage", "SavingsPlanCoveredUsage")
_DISCOUNTED = ("Usage", "EdpDiscount")  # a row's type and the type of the row after it
_SPREADS = {"full": 0, "even": 1, "heavy": 2}


@dataclass(frozen=True)
class Slot:
    """One repeating row: `cells` are final text by CUR header, the rest is for the SQL.

    `amount`, `most` (the largest quantity) and `rate` are ticks, `growth` is per mille. The
    percentages are of the cost at `rate`; None leaves the cell empty. Usage starts at one of
    `steps` intervals of `step_hours` after `origin`. `run_rows` bill rows make one run, in which
    a slot keeps its resource and its line item id.
    """

    cells: dict[str, str]
    amount: int
    most: int
    rate: int
    growth: int
    spread: int
    whole: bool
    lump: bool
    exponent: bool
    changes: bool
    behind: int
    run_rows: int
    origin: datetime
    steps: int
    step_hours: int
    zone: str | None
    tagged: bool
    resource: str | None
    normalization: int | None
    cost_percent: int
    blended_percent: int
    public_percent: int | None
    plan_percent: int | None
    reserved_percent: int | None
    edp_percent: int | None


def number_text(number: int, exponent: bool = False) -> str:
    """Return ticks as AWS prints them: 0.0116000000, or 4.0E-7 as Java prints a small double."""
    if exponent and 0 < number < TICKS // 1000:
        digits = str(number)
        return f"{digits[0]}.{digits[1:].rstrip('0') or '0'}E-{11 - len(digits)}"
    return f"{number // TICKS}.{number % TICKS:010d}"


@cache
def month_slots(month: date, seed: int, *, final: bool) -> tuple[Slot, ...]:
    """Return the 1,000 slots of a month, then those of what AWS adds after the month's end.

    A `final` month has invoice ids, which AWS leaves blank until it has closed the month.
    """
    rows = planned_rows()
    used = commitments_used(rows)
    return tuple(
        _slot(row, position, month, seed, final, used)
        for position, row in enumerate(rows + late_rows())
    )


def _slot(
    row: PlannedRow, position: int, month: date, seed: int, final: bool, used: dict[str, int]
) -> Slot:
    """Return one position's slot; `used` is what 1,000 rows use of each commitment."""
    meter = row.meter
    exponent = meter.spread == "heavy" and position % 3 == 0
    origin, steps, step_hours = _times(meter.interval, month)
    fee, fee_cells = _fee(row, used)
    factor = meter.attributes.get("normalizationSizeFactor")
    offset = _OFFSETS.get(meter.kind, 100)
    reserved = RESERVATION_PERCENT if meter.kind == "DiscountedUsage" else None
    cells = (
        _bill_cells(row, month, final)
        | _line_cells(row, fee, exponent)
        | _product_cells(row)
        | _pricing_cells(row, exponent)
        | _commitment_cells(row, month)
        | fee_cells
    )
    return Slot(
        cells={header: text for header, text in cells.items() if text},
        amount=ticks(meter.amount),
        most=ticks(meter.amount) if meter.unit == "Hrs" else NO_LIMIT,
        rate=fee or row.rate,
        growth=1000 if meter.spread == "full" else growth(meter.service, month, seed),
        spread=_SPREADS[meter.spread],
        whole="whole" in meter.flags,
        lump="lump" in meter.flags,
        exponent=exponent,
        changes=meter.kind == "Usage",
        behind=int(row.behind),
        run_rows=4 * SLOTS if steps > 4 and position < SLOTS else 1,
        origin=origin,
        steps=steps,
        step_hours=step_hours,
        zone=row.region.code if "zonal" in meter.flags else None,
        tagged=meter.resource is not None,
        resource=_placed(meter.resource, row) if meter.resource else None,
        normalization=int(factor) if factor else None,
        cost_percent=offset,
        blended_percent=reserved or offset,
        public_percent=100 if meter.kind in _LISTED else None,
        plan_percent=SAVINGS_PLAN_PERCENT if meter.kind == "SavingsPlanCoveredUsage" else None,
        reserved_percent=reserved,
        edp_percent=-EDP_PERCENT if (meter.kind, meter.follower) == _DISCOUNTED else None,
    )


def _times(interval: str, month: date) -> tuple[datetime, int, int]:
    """Return where an interval's usage starts: origin, number of steps, hours of a step."""
    first = month
    if interval == "previous":
        first = (month - timedelta(days=1)).replace(day=1)
    days = (BillingMonth.of(first).next.first_day - first).days
    steps, hours = {"hour": (days * 24, 1), "month": (1, days * 24)}.get(interval, (days, 24))
    return datetime(first.year, first.month, 1), steps, hours


def _placed(text: str, row: PlannedRow) -> str:
    """Fill the row's region, location, rate and SKU into a template."""
    if "{" not in text:
        return text
    rate = Decimal(row.rate) / TICKS
    return (
        text.replace("{region}", row.region.code or "global")
        .replace("{location}", row.region.location or "Any")
        .replace("{rate}", f"{rate.normalize():f}")
        .replace("{sku}", _sku(row))
    )


def _bill_cells(row: PlannedRow, month: date, final: bool) -> dict[str, str]:
    """Return the bill/ cells; a seller on the Marketplace invoices under its own name."""
    seller = row.meter.service.seller
    kinds = {"Refund": "Refund", "Fee": "Purchase"}
    return {
        "bill/InvoiceId": token(f"{month}/{seller}", 10, "123456789") if final else "",
        "bill/InvoicingEntity": seller,
        "bill/BillingEntity": "AWS" if seller == AWS_ENTITY else "AWS Marketplace",
        "bill/BillType": kinds.get(row.meter.kind, "Anniversary"),
        "bill/PayerAccountId": PAYER_ACCOUNT,
        "bill/BillingPeriodStartDate": f"{month}T00:00:00Z",
        "bill/BillingPeriodEndDate": f"{BillingMonth.of(month).next.first_day}T00:00:00Z",
    }


def _line_cells(row: PlannedRow, fee: int, exponent: bool) -> dict[str, str]:
    """Return the lineItem/ cells that do not depend on time, account or quantity."""
    meter = row.meter
    usage_type = "-".join(filter(None, (row.region.prefix, meter.usage_type)))
    rate = 0 if meter.kind == "DiscountedUsage" else fee or row.rate
    unit_price = "" if "lump" in meter.flags else number_text(rate, exponent)
    return {
        "lineItem/LineItemType": meter.kind,
        "lineItem/ProductCode": meter.service.product_code,
        "lineItem/UsageType": usage_type,
        "lineItem/Operation": meter.operation or "",
        "lineItem/NormalizationFactor": meter.attributes.get("normalizationSizeFactor", ""),
        "lineItem/CurrencyCode": "USD",
        "lineItem/UnblendedRate": unit_price,
        "lineItem/BlendedRate": unit_price,
        "lineItem/LineItemDescription": _placed(meter.description, row),
        "lineItem/TaxType": "USSalesTax" if meter.kind == "Tax" else "",
        "lineItem/LegalEntity": meter.service.seller,
        "costCategory/Charge type": "Usage" if meter.kind in _LISTED else meter.kind,
    }


def _product_cells(row: PlannedRow) -> dict[str, str]:
    """Return the product/ cells; taxes, refunds and credits have a name and nothing else."""
    meter, region = row.meter, row.region
    named = {"product/ProductName": meter.service.name}
    if "lump" in meter.flags:
        return named
    servicecode = meter.service.servicecode or meter.service.product_code
    return named | {
        "product/location": region.location or "",
        "product/locationType": "AWS Region" if region.location else "",
        "product/operation": meter.operation or "",
        "product/productFamily": meter.family or "",
        "product/region": region.code or "global",
        "product/regionCode": region.code or "",
        "product/servicecode": servicecode,
        "product/servicename": meter.service.name,
        "product/sku": _sku(row),
        "product/usagetype": "-".join(filter(None, (region.prefix, meter.usage_type))),
        **{f"product/{name}": _placed(text, row) for name, text in meter.attributes.items()},
    }


def _sku(row: PlannedRow) -> str:
    """Return the price list's key of a meter in a region."""
    return token(f"{row.meter.service.name}/{row.meter.usage_type}/{row.region.prefix}", 16)


def _pricing_cells(row: PlannedRow, exponent: bool) -> dict[str, str]:
    """Return the pricing/ cells of usage; fees and offsetting rows have a currency at most."""
    if row.meter.kind not in _LISTED:
        return {"pricing/currency": "USD" if row.meter.unit else ""}
    sku = _sku(row)
    return {
        "pricing/RateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7",
        "pricing/RateId": token(sku, 12, "123456789"),
        "pricing/currency": "USD",
        "pricing/publicOnDemandRate": number_text(row.rate, exponent),
        "pricing/term": "Reserved" if row.meter.kind == "DiscountedUsage" else "OnDemand",
        "pricing/unit": row.meter.unit or "",
    }


def _commitment_cells(row: PlannedRow, month: date) -> dict[str, str]:
    """Return the cells that name the Savings Plan or reservation of a row."""
    arn = row.commitment
    if arn is None:
        return {}
    start, end = f"{month.year}-01-01T00:00:00.000Z", f"{month.year + 1}-01-01T00:00:00.000Z"
    if arn in RESERVATION_ARNS.values():
        return {
            "reservation/ReservationARN": arn,
            "reservation/SubscriptionId": token(arn, 9, "123456789"),
            "reservation/StartTime": start,
            "reservation/EndTime": end,
            "pricing/LeaseContractLength": "1yr",
            "pricing/OfferingClass": "standard",
            "pricing/PurchaseOption": "Partial Upfront",
        }
    covered = row.meter.kind == "SavingsPlanCoveredUsage"
    rate = number_text(row.rate * SAVINGS_PLAN_PERCENT // 100) if covered else ""
    return {
        "savingsPlan/SavingsPlanARN": arn,
        "savingsPlan/SavingsPlanRate": rate,
        "savingsPlan/OfferingType": "ComputeSavingsPlans",
        "savingsPlan/PaymentOption": "No Upfront",
        "savingsPlan/PurchaseTerm": "1yr",
        "savingsPlan/StartTime": start,
        "savingsPlan/EndTime": end,
    }


def _fee(row: PlannedRow, used: dict[str, int]) -> tuple[int, dict[str, str]]:
    """Return the price in ticks and the cells of a row that pays for a commitment, else nothing.

    Half a reservation's price was paid up front, so its fee is the other half.
    """
    if row.commitment is None or row.meter.kind not in ("SavingsPlanRecurringFee", "RIFee"):
        return 0, {}
    taken = used[row.commitment]
    if row.meter.kind == "SavingsPlanRecurringFee":
        fee = taken * 100 // USED_PERCENT
        return fee, {
            "savingsPlan/TotalCommitmentToDate": number_text(fee),
            "savingsPlan/UsedCommitment": number_text(taken),
            "savingsPlan/RecurringCommitmentForBillingPeriod": number_text(fee),
            "savingsPlan/AmortizedUpfrontCommitmentForBillingPeriod": number_text(0),
        }
    fee = taken // 2 * 100 // USED_PERCENT
    unused = number_text(fee - taken // 2)
    return fee, {
        "reservation/AmortizedUpfrontFeeForBillingPeriod": number_text(fee),
        "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": unused,
        "reservation/UnusedRecurringFee": unused,
        "reservation/NumberOfReservations": "1",
        "reservation/UnitsPerReservation": "1.0",
    }
