"""The formats of Azure's cost exports: FOCUS, and actual and amortized costs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import ClassVar, Protocol

from finops_dagster.billing.columns import Sql, SqlType, flat_name, quoted
from finops_dagster.sources.base import FixedFormat
from finops_dagster.sources.focus import COSTS as FOCUS_COSTS
from finops_dagster.sources.focus import FocusColumns

# `Abonnement-GUID (SubscriptionGuid)`: exports of an account whose language is not English have the
# English name in parentheses.
_LOCALISED = re.compile(r".*\(([A-Za-z][A-Za-z0-9_]*)\)\s*")


class AzureFormat(FixedFormat, Protocol):
    """A dataset of Azure Cost Management, whose headers depend on the billing agreement."""

    vendor: str = "azure"
    datasets: frozenset[str]  # the lower-case names of the dataset in manifests
    null_words: tuple[str, ...] = ()
    time_formats: tuple[str, ...] = ()
    # A billing account may have invoices in several currencies.
    expects_one_currency: bool = False

    def column(self, header: str) -> str:
        """Return the English header in lower case, with `_` for characters other than a-z and 0-9.

        A localised header has the English one in parentheses.
        """
        localised = _LOCALISED.fullmatch(header)
        return flat_name(localised[1] if localised else header)

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return an SQL aggregate that is true if every row with a cost has an invoice id.

        If no row has an id, it is false; but NULL if the billing account's id is a number, as in an
        Enterprise Agreement: nothing then shows whether the month is closed. None is returned in
        place of SQL if `columns`, those of the table, lack one that this needs. Version 1.0 of
        FOCUS has the invoice id in `x_InvoiceId`.
        """
        names = [name for name in (self.invoice, "x_invoiceid") if name in columns]
        if not names or not {self.cost, "billingaccountid"} <= set(columns):
            return None
        ids = ", ".join(f"nullif({quoted(name)}, '')" for name in names)
        return Sql(
            f"CASE WHEN count(coalesce({ids})) > 0 THEN count(*) FILTER ({quoted(self.cost)} <> 0 "
            f"AND coalesce({ids}) IS NULL) = 0 "
            "WHEN NOT coalesce(bool_and(regexp_matches(billingaccountid, '(^|/)[0-9]+$')), false) "
            "THEN false END"
        )


_COSTS_IN_USD = (
    "x_billedcostinusd x_contractedcostinusd x_effectivecostinusd x_listcostinusd "
    "x_ondemandcostinusd"
).split()
# `UsageQuantity` and the costs on demand are of 1.0-preview(v1).
_NUMBERS = (
    "usagequantity x_billedunitprice x_billingexchangerate x_effectiveunitprice x_ondemandcost "
    "x_ondemandunitprice x_pricingblocksize"
).split()
_TIMES = "x_billingexchangeratedate x_serviceperiodend x_serviceperiodstart".split()
# Texts that Parquet files may hold as numbers or booleans; Microsoft's own lists of the columns
# disagree about them.
_TEXTS = "consumedunit x_partnercreditrate x_skudetails x_skuiscrediteligible x_skuterm".split()


class AzureFocus(FocusColumns, AzureFormat):
    """FOCUS in Azure's versions 1.0-preview(v1), 1.0, 1.0r2 and 1.2-preview.

    A column that a version renamed is another column: `x_InvoiceId` became `InvoiceId`.
    https://learn.microsoft.com/azure/cost-management-billing/dataset-schema/cost-usage-details-focus
    """

    name = "focus"
    datasets = frozenset({"focuscost"})
    null_words = ("NULL",)  # as in the sample data of the specification
    money = frozenset({*FOCUS_COSTS, *_COSTS_IN_USD})
    known_types: ClassVar[dict[str, SqlType]] = {
        **FocusColumns.known_types,
        **dict.fromkeys([*_COSTS_IN_USD, *_NUMBERS], SqlType.MONEY),
        **dict.fromkeys(_TIMES, SqlType.TIME),
        **dict.fromkeys(_TEXTS, SqlType.TEXT),
    }


_AGREEMENTS: dict[str, tuple[str, ...]] = {
    "costinbillingcurrency": ("cost", "pretaxcost"),
    "billingcurrency": ("billingcurrencycode", "currency"),
    "date": ("usagedatetime",),
    "subscriptionid": ("subscriptionguid",),
}
_PRIMARY_NAMES = {alias: name for name, aliases in _AGREEMENTS.items() for alias in aliases}
_USAGE_COSTS = (
    "costinbillingcurrency costinpricingcurrency costinusd paygcostinbillingcurrency paygcostinusd"
).split()
_USAGE_NUMBERS = (
    "effectiveprice exchangeratepricingtobilling paygprice quantity resourcerate unitprice "
    "usagequantity"
).split()
_USAGE_TIMES = (
    "billingperiodenddate billingperiodstartdate date exchangeratedate serviceperiodenddate "
    "serviceperiodstartdate"
).split()


class _AzureUsage(AzureFormat):
    """The usage details of all agreements: Enterprise, Microsoft Customer and Partner, and PAYG.

    Each names the columns of a role in its own way: the cost is `Cost`, `CostInBillingCurrency` or
    `PreTaxCost`. They share one column; all other columns keep the names that they have.
    https://learn.microsoft.com/azure/cost-management-billing/automate/understand-usage-details-fields
    """

    time_formats = ("%m/%d/%Y",)
    cost = "costinbillingcurrency"
    billing_period = "billingperiodstartdate"
    usage_start = "date"
    service = "metercategory"
    account = "subscriptionid"
    currency = "billingcurrency"
    invoice = "invoiceid"
    money = frozenset(_USAGE_COSTS)
    known_types: ClassVar[dict[str, SqlType]] = {
        **dict.fromkeys([*_USAGE_COSTS, *_USAGE_NUMBERS], SqlType.MONEY),
        **dict.fromkeys(_USAGE_TIMES, SqlType.TIME),
        "tags": SqlType.TEXT_MAP,
    }

    def column(self, header: str) -> str:
        """Return the English header in lower case, or the name that all agreements share here.

        `PreTaxCost` and `Cost` become `costinbillingcurrency`.
        """
        name = super().column(header)
        return _PRIMARY_NAMES.get(name, name)


class AzureActual(_AzureUsage):
    """Costs as they are invoiced: purchases at their date, and usage that they cover at zero.

    The oldest accounts can export the dataset `Usage` alone.
    """

    name = "actual"
    datasets = frozenset({"actualcost", "usage"})


class AzureAmortized(_AzureUsage):
    """Costs with purchases spread over the usage that they cover, and over what is unused."""

    name = "amortized"
    datasets = frozenset({"amortizedcost"})


def azure_formats() -> dict[str, AzureFormat]:
    """Return Azure's formats by their names in the settings."""
    formats: tuple[AzureFormat, ...] = (AzureFocus(), AzureActual(), AzureAmortized())
    return {format_.name: format_ for format_ in formats}
