"""Azure's actual and amortized costs, which together are the charges of a month.

The amortized bill has all charges but the purchases of commitments, whose cost it spreads over
what they cover. Those purchases, and refunds of them, are taken from the actual bill. Every other
line of the actual bill is in the amortized one too, at the same cost.
https://learn.microsoft.com/cloud-computing/finops/focus/convert
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Input, Kind, Lookup

# Columns of the bill under the names that most agreements have for them; then their other names.
_TEXTS = (
    "additionalinfo availabilityzone benefitid benefitname billingaccountid billingaccountname "
    "billingcurrency billingprofileid billingprofilename chargetype consumedservice frequency "
    "invoiceid metercategory meterid metername metersubcategory partnername partnumber planname "
    "previousinvoiceid pricingcurrency pricingmodel productid productname productorderid "
    "productordername publishername publishertype reservationid reservationname resourceid "
    "resourcelocation resourcename subscriptionid subscriptionname term unitofmeasure"
).split()
_NUMBERS = (
    "costinbillingcurrency costinpricingcurrency effectiveprice exchangeratepricingtobilling "
    "paygcostinbillingcurrency paygprice quantity unitprice"
).split()
_TIMES = "billingperiodenddate billingperiodstartdate date serviceperiodstartdate".split()
_OTHER_NAMES = {
    "pricingcurrency": ("pricingcurrencycode",),
    "productname": ("product",),
    "quantity": ("usagequantity",),
    "resourceid": ("instanceid",),
    "resourcelocation": ("location",),
    "unitprice": ("resourcerate",),
}
# All columns stay visible as Azure wrote them, but those that FOCUS has unchanged.
_UNCHANGED = (
    "availabilityzone billingcurrency billingperiodenddate billingperiodstartdate "
    "costinbillingcurrency date invoiceid tags"
).split()


def _word(column: str) -> str:
    """Return SQL for a word in lower case without blanks: `On Demand` is `ondemand`."""
    return f"lower(replace(coalesce({column}, ''), ' ', ''))"


def _known(column: str) -> str:
    """Return SQL for an id or a name; NULL where Azure wrote that there is none."""
    return (
        f"(CASE WHEN lower({column}) NOT IN ('', '-2', 'unassigned', 'n/a', "
        f"'00000000-0000-0000-0000-000000000000') THEN {column} END)"
    )


def _double(amount: str) -> str:
    """Return SQL for an amount as a DOUBLE; the product of two DECIMALs would not fit in one."""
    return f"CAST({amount} AS DOUBLE)"


# `/subscriptions/../providers/Microsoft.Sql/servers/one/databases/two`: a name follows each type.
_PATH = "string_split(regexp_extract(lower(resourceid), '.*/providers/(.+)', 1), '/')"
# What the kinds, the lookups and several expressions read, made of the bill's columns and of those
# before it.
_COMPUTED = {
    # The oldest pay-as-you-go bills have no charge type, and nothing but usage.
    "charge_type": f"coalesce(nullif({_word('chargetype')}, ''), 'usage')",
    "how_often": _word("frequency"),
    "model": _word("pricingmodel"),
    "benefit": f"lower(coalesce({_known('benefitid')}, {_known('reservationid')}))",
    # Older bills name the commitment, but have no pricing model.
    "commitment": """CASE
        WHEN model = 'reservation' OR charge_type = 'unusedreservation' THEN 'Reservation'
        WHEN model = 'savingsplan' OR charge_type = 'unusedsavingsplan' THEN 'Savings Plan'
        WHEN model <> '' THEN NULL
        WHEN contains(benefit, '/microsoft.billingbenefits/') THEN 'Savings Plan'
        WHEN benefit IS NOT NULL THEN 'Reservation' END""",
    "publisher": _word("publishertype"),
    # A refund has the category of what is refunded, if the bill shows it.
    "category": """CASE
        WHEN charge_type IN ('usage', 'unusedreservation', 'unusedsavingsplan') THEN 'Usage'
        WHEN charge_type = 'purchase' THEN 'Purchase'
        WHEN charge_type = 'tax' THEN 'Tax'
        WHEN charge_type = 'credit' THEN 'Credit'
        WHEN charge_type <> 'refund' THEN 'Adjustment'
        WHEN commitment IS NOT NULL OR contains(publisher, 'marketplace') THEN 'Purchase'
        WHEN how_often = 'usagebased' THEN 'Usage'
        WHEN how_often IN ('onetime', 'recurring') THEN 'Purchase'
        ELSE 'Adjustment' END""",
    "resource_type": f"""nullif(array_to_string(list_filter({_PATH},
        lambda part, number: number = 1 OR number % 2 = 0), '/'), '')""",
}
# Like tags, the details are written with and without braces.
_INFO = """TRY_CAST(TRY_CAST(CASE WHEN starts_with(ltrim(additionalinfo), '{') THEN additionalinfo
    ELSE '{' || additionalinfo || '}' END AS JSON) AS MAP(VARCHAR, VARCHAR))"""


def _computed(sql: str, _columns: Collection[str]) -> tuple[Sql, Collection[str]]:
    return Sql(sql), ()


_INPUTS = (
    *(Input(name, spellings=_OTHER_NAMES.get(name, ())) for name in _TEXTS),
    *(Input(name, SqlType.MONEY, _OTHER_NAMES.get(name, ())) for name in _NUMBERS),
    *(Input(name, SqlType.TIME) for name in _TIMES),
    Input("tags", SqlType.TEXT_MAP),
    *(Input(name, build=partial(_computed, sql)) for name, sql in _COMPUTED.items()),
    Input("info", SqlType.TEXT_MAP, build=partial(_computed, _INFO)),
)

_COST = "costinbillingcurrency"
_IS_PURCHASE = "(charge_type IN ('purchase', 'refund') AND commitment IS NOT NULL)"
_IS_UNUSED = "(charge_type IN ('unusedreservation', 'unusedsavingsplan'))"
_IS_COVERED = "(charge_type = 'usage' AND commitment IS NOT NULL)"
_IS_PRICED = "category IN ('Usage', 'Purchase')"


def _quotient(left: str, right: str) -> str:
    """Return SQL for a quotient with all decimals that fit."""
    return f"CAST({_double(left)} / {right} AS {SqlType.MONEY})"


def _is_cost(quantity: str) -> str:
    """Return SQL that is true if the price of a quantity is the cost, but for its rounding."""
    product = f"{_double('effectiveprice')} * {_double(quantity)} * rate"
    return f"abs({product} - {_COST}) <= 1e-4 * abs({_COST})"


def _at(price: str) -> str:
    """Return SQL for the cost at a price, in the billing currency; NULL for a missing price.

    Azure has 0 where a price is missing: reservations in MCA, the marketplace.
    """
    return f"nullif({_double(price)} * {_double('blocks')} * rate, 0)"


# Columns that are added to the line items one step after the other, for the expressions below.
_STEPS = (
    {
        "rate": _double("coalesce(nullif(exchangeratepricingtobilling, 0), 1)"),
        "block": "coalesce(CAST(unit_block AS DECIMAL(18, 0)), 1)",
        "resource": f"lower({_known('resourceid')})",
        "place": _known("resourcelocation"),
        "subscription": f"lower({_known('subscriptionid')})",
        "commitment_id": f"""CASE WHEN commitment IS NOT NULL
            THEN coalesce(benefit, lower({_known("productorderid")})) END""",
        # An enrolment is a number; its profile, if there is one, is the same.
        "is_enrolment": """billingprofileid IS NULL
            OR regexp_matches(coalesce(billingaccountid, ''), '(^|/)[0-9]+$')""",
        "is_correction": """charge_type = 'refund' AND NOT coalesce(previousinvoiceid IS NULL
            AND serviceperiodstartdate >= billingperiodstartdate, false)""",
        # A charge that has a cost and no quantity is one unit at this cost.
        "has_quantity": f"coalesce(quantity, 0) <> 0 OR {_COST} = 0",
        "sku": """coalesce(productid, meterid, partnumber, planname, productname, metercategory,
            'Unassigned')""",
    },
    # Microsoft writes that the quantity counts single units, and the price blocks of them, such as
    # 10K. In the bills that are public, both count blocks. The line's own price decides, if it can.
    {
        "in_single_units": f"""coalesce(block > 1 AND {_COST} <> 0 AND effectiveprice <> 0
            AND {_is_cost(_quotient("quantity", "block"))}, false)""",
    },
    {
        "blocks": f"if(in_single_units, {_quotient('quantity', 'block')}, quantity)",
        "singles": f"if(in_single_units, quantity, CAST(quantity * block AS {SqlType.MONEY}))",
    },
    {
        "pricing_quantity": f"if(has_quantity, coalesce(blocks, 0), sign({_COST}))",
        "pricing_unit": "coalesce(if(has_quantity, unit_priced_unit, NULL), 'Units')",
        "at_contract": _at("unitprice"),
        "at_list": f"coalesce(nullif(paygcostinbillingcurrency, 0), {_at('paygprice')})",
    },
)

_HAS_COMMITMENT = "commitment_id IS NOT NULL"
_COMMITTED = f"({_HAS_COMMITMENT} AND {_IS_PRICED} AND NOT is_correction)"
_CONSUMES = f"(category = 'Usage' AND NOT {_IS_UNUSED})"
_HAS_NO_PRICE = f"charge_type = 'usage' AND {_COST} <> 0"
_CHANGES = f"""list_filter([
    CASE WHEN {_HAS_NO_PRICE} AND at_contract IS NULL THEN 'MissingContractedCost' END,
    CASE WHEN {_HAS_NO_PRICE} AND at_list IS NULL THEN 'MissingListCost' END],
    lambda code: code IS NOT NULL)"""
_DETAILS = """map_from_entries(list_transform(map_entries(info), lambda entry: {
    'key': CASE lower(entry.key) WHEN 'vcpus' THEN 'CoreCount'
        WHEN 'servicetype' THEN 'InstanceType' WHEN 'imagetype' THEN 'OperatingSystem'
        ELSE 'x_' || entry.key END,
    'value': entry.value}))"""
_RATIO = "TRY_CAST(info['RINormalizationRatio'] AS DOUBLE)"
_RESERVED_CAPACITY = "nullif(info['VMCapacityReservationId'], '')"

_ACCOUNTS = "/providers/microsoft.billing/billingaccounts/"
_NAMED = "coalesce(metername, metersubcategory, metercategory, productname, 'Unassigned')"
_SERVICE = """coalesce(service_service, meter_service, consumed_service, metercategory,
    CASE WHEN contains(publisher, 'marketplace') THEN publishername END, metersubcategory,
    'Unassigned')"""


def _of_service(column: str, default: str) -> str:
    return (
        f"coalesce(service_{column}, meter_{column}, consumed_{column}, named_{column}, {default})"
    )


def _price(cost: str, column: str) -> str:
    """Return SQL for the price that makes a cost, or the bill's own price of no quantity."""
    price = f"if(PricingQuantity = 0, {column}, {cost} / PricingQuantity)"
    return f"CASE WHEN ChargeCategory IN ('Usage', 'Purchase') AND {price} >= 0 THEN {price} END"


_MAPPED = {
    "BilledCost": Expression(_COST),
    "EffectiveCost": Expression(_COST),
    "ListCost": Expression(
        f"coalesce(if(charge_type = 'usage', coalesce(at_list, at_contract), NULL), {_COST})",
        "the pay-as-you-go price; where Azure has none, what the contract says",
    ),
    "ContractedCost": Expression(
        f"coalesce(if(charge_type = 'usage', at_contract, NULL), {_COST})",
        "the price without commitments; where Azure has none, what was paid",
    ),
    "ListUnitPrice": Expression(f"coalesce({_double('paygprice')} * rate, 0)"),
    "ContractedUnitPrice": Expression(f"coalesce({_double('unitprice')} * rate, 0)"),
    "PricingCurrencyListUnitPrice": Expression("rate", "prices are divided by the exchange rate"),
    "PricingCurrencyContractedUnitPrice": Expression("rate"),
    "PricingCurrencyEffectiveCost": Expression(
        f"coalesce(costinpricingcurrency, CASE WHEN rate = 1 THEN {_COST} "
        f"ELSE {_quotient(_COST, 'rate')} END)"
    ),
    "AvailabilityZone": Expression("availabilityzone"),
    "BillingAccountId": Expression(
        f"""lower(CASE WHEN starts_with(billingaccountid, '/') AND is_enrolment
            THEN billingaccountid
            WHEN is_enrolment THEN '{_ACCOUNTS}' || coalesce(billingaccountid, subscriptionid)
            WHEN starts_with(billingprofileid, '/') THEN billingprofileid
            ELSE '{_ACCOUNTS}' || billingaccountid || '/billingprofiles/' || billingprofileid
            END)""",
        "as Azure's FOCUS has it; invoices of a customer agreement are of the billing profile",
    ),
    "BillingAccountName": Expression(
        "CASE WHEN is_enrolment THEN billingaccountname ELSE billingprofilename END"
    ),
    "BillingAccountType": Expression(
        "CASE WHEN is_enrolment THEN 'Billing Account' ELSE 'Billing Profile' END"
    ),
    "BillingCurrency": Expression("billingcurrency"),
    "BillingPeriodStart": Expression("billingperiodstartdate"),
    "BillingPeriodEnd": Expression(
        "billingperiodenddate + INTERVAL 1 DAY", "Azure writes the last day"
    ),
    "CapacityReservationId": Expression(
        f"CASE WHEN category = 'Usage' THEN {_RESERVED_CAPACITY} END"
    ),
    "CapacityReservationStatus": Expression(
        f"""CASE WHEN category <> 'Usage' OR {_RESERVED_CAPACITY} IS NULL THEN NULL
            WHEN resource_type = 'microsoft.compute/capacityreservationgroups/capacityreservations'
            THEN 'Unused' ELSE 'Used' END"""
    ),
    "ChargeCategory": Expression("category"),
    "ChargeClass": Expression(
        "CASE WHEN is_correction THEN 'Correction' END",
        "a refund, unless it names a service period that is not invoiced yet",
    ),
    "ChargeDescription": Expression(
        """coalesce(productname, metersubcategory, metername, metercategory, productordername,
            benefitname, reservationname, chargetype, 'Usage')"""
    ),
    "ChargeFrequency": Expression(
        """CASE WHEN how_often = 'recurring' THEN 'Recurring'
            WHEN how_often = 'onetime' THEN 'One-Time'
            WHEN category = 'Usage' THEN 'Usage-Based'
            WHEN category = 'Purchase' AND commitment = 'Savings Plan' THEN 'Recurring'
            WHEN category <> 'Purchase' AND how_often = 'usagebased' THEN 'Usage-Based'
            ELSE 'One-Time' END""",
        "a purchase is never based on usage, whatever Azure writes of a savings plan",
    ),
    "ChargePeriodStart": Expression("date"),
    "ChargePeriodEnd": Expression("date + INTERVAL 1 DAY"),
    "CommitmentDiscountCategory": Expression(
        f"CASE WHEN {_HAS_COMMITMENT} THEN if(commitment = 'Reservation', 'Usage', 'Spend') END"
    ),
    "CommitmentDiscountId": Expression("commitment_id"),
    "CommitmentDiscountName": Expression(
        f"CASE WHEN {_HAS_COMMITMENT} THEN coalesce(benefitname, reservationname) END"
    ),
    "CommitmentDiscountQuantity": Expression(
        f"""CASE WHEN NOT {_COMMITTED} THEN NULL
            WHEN commitment = 'Savings Plan' THEN {_double(_COST)} / rate
            ELSE pricing_quantity * coalesce({_RATIO}, 1) END"""
    ),
    "CommitmentDiscountStatus": Expression("NULL", "a purchase is neither used nor unused"),
    "CommitmentDiscountType": Expression(f"CASE WHEN {_HAS_COMMITMENT} THEN commitment END"),
    "CommitmentDiscountUnit": Expression(
        f"""CASE WHEN NOT {_COMMITTED} THEN NULL
            WHEN commitment = 'Savings Plan' THEN coalesce(pricingcurrency, billingcurrency)
            WHEN {_RATIO} IS NOT NULL THEN 'Normalized ' || pricing_unit ELSE pricing_unit END"""
    ),
    # A refund of usage gives back its quantity; FOCUS's model wants one of corrections too.
    "ConsumedQuantity": Expression(
        f"CASE WHEN {_CONSUMES} THEN if(has_quantity, coalesce(singles, 0), pricing_quantity) END"
    ),
    "ConsumedUnit": Expression(
        f"CASE WHEN {_CONSUMES} THEN coalesce(if(has_quantity, unit_unit, NULL), 'Units') END"
    ),
    "InvoiceId": Expression("invoiceid"),
    "InvoiceIssuerName": Expression("coalesce(partnername, 'Microsoft')"),
    "PricingCategory": Expression(
        f"""CASE WHEN NOT {_IS_PRICED} THEN NULL
            WHEN category = 'Usage' AND commitment IS NOT NULL THEN 'Committed'
            WHEN model = 'spot' THEN 'Dynamic'
            WHEN commitment IS NOT NULL OR model IN ('ondemand', '') THEN 'Standard'
            ELSE 'Other' END""",
    ),
    "PricingCurrency": Expression("coalesce(pricingcurrency, billingcurrency)"),
    "PricingQuantity": Expression(f"CASE WHEN {_IS_PRICED} THEN pricing_quantity END"),
    "PricingUnit": Expression(f"CASE WHEN {_IS_PRICED} THEN pricing_unit END"),
    "ProviderName": Expression("'Microsoft'"),
    "PublisherName": Expression(
        """CASE WHEN lower(publishername) <> 'microsoft corporation' THEN publishername
            WHEN contains(publisher, 'marketplace') THEN 'Azure Marketplace' ELSE 'Microsoft' END"""
    ),
    "RegionId": Expression("coalesce(region_id, lower(replace(place, ' ', '')))"),
    "RegionName": Expression("coalesce(region_name, place)"),
    "ResourceId": Expression("resource", "Azure writes ids in several cases"),
    "ResourceName": Expression(
        f"""CASE WHEN resource IS NOT NULL THEN lower(coalesce({_known("resourcename")},
            regexp_extract(rtrim(resourceid, '/'), '([^/]+)$', 1))) END"""
    ),
    "ResourceType": Expression(
        "CASE WHEN resource IS NOT NULL THEN coalesce(type_name, resource_type, 'Resource') END"
    ),
    "ServiceCategory": Expression(_of_service("category", "'Other'")),
    "ServiceName": Expression(
        _SERVICE, "of the resource's type; else of the meter; else of the consumed service"
    ),
    "ServiceSubcategory": Expression(_of_service("subcategory", "'Other (Other)'")),
    "SkuId": Expression("CASE WHEN category <> 'Tax' THEN sku END"),
    "SkuMeter": Expression(f"CASE WHEN category <> 'Tax' THEN {_NAMED} END"),
    "SkuPriceDetails": Expression(f"CASE WHEN category <> 'Tax' THEN {_DETAILS} END"),
    "SkuPriceId": Expression(
        "CASE WHEN category <> 'Tax' THEN concat_ws('_', sku, nullif(meterid, sku), "
        "partnumber, nullif(model, ''), term) END",
        "Azure has no id of a price: it depends on the SKU, the meter and the commitment",
    ),
    "SubAccountId": Expression("'/subscriptions/' || subscription", "as Azure's FOCUS has it"),
    "SubAccountName": Expression(
        f"CASE WHEN subscription IS NOT NULL "
        f"THEN coalesce({_known('subscriptionname')}, subscription) END"
    ),
    "SubAccountType": Expression("CASE WHEN subscription IS NOT NULL THEN 'Subscription' END"),
    "Tags": Expression(
        "map_from_entries(list_transform(map_entries(tags), lambda entry: "
        "{'key': entry.key, 'value': coalesce(entry.value, 'true')}))"
    ),
    "x_source_changes": Expression(
        _CHANGES,
        "costs that Azure does not have, by the codes of Microsoft's own repairs",
        Sql("VARCHAR[]"),
    ),
}
_DERIVED = {
    "BillingPeriodStart": Expression(
        "coalesce(BillingPeriodStart, x_billing_month)", "bills of partners may have no period"
    ),
    "BillingPeriodEnd": Expression(
        "coalesce(BillingPeriodEnd, x_billing_month + INTERVAL 1 MONTH)"
    ),
    "ListUnitPrice": Expression(
        _price("ListCost", "ListUnitPrice"), "so that price and quantity make the cost"
    ),
    "ContractedUnitPrice": Expression(_price("ContractedCost", "ContractedUnitPrice")),
    "PricingCurrencyListUnitPrice": Expression(
        f"({_price('ListCost', 'ListUnitPrice')}) / PricingCurrencyListUnitPrice"
    ),
    "PricingCurrencyContractedUnitPrice": Expression(
        f"({_price('ContractedCost', 'ContractedUnitPrice')}) / PricingCurrencyContractedUnitPrice"
    ),
}

# What is bought, or was not used, is the commitment itself.
_OF_COMMITMENT = {
    "ResourceId": "coalesce(commitment_id, resource)",
    "ResourceName": f"""CASE WHEN {_HAS_COMMITMENT} THEN lower(coalesce(benefitname,
        reservationname, regexp_extract(commitment_id, '([^/]+)$', 1))) END""",
    "ResourceType": "commitment",
}
_NOT_EFFECTIVE = {"EffectiveCost": "0", "PricingCurrencyEffectiveCost": "0"}
_USED = {
    "BilledCost": "0",
    "CommitmentDiscountStatus": f"CASE WHEN {_HAS_COMMITMENT} THEN 'Used' END",
}
_UNUSED = {
    **_OF_COMMITMENT,
    "BilledCost": "0",
    "ListCost": "0",
    "ContractedCost": "0",
    "CommitmentDiscountStatus": f"CASE WHEN {_HAS_COMMITMENT} THEN 'Unused' END",
}
_IN_BOTH = "both bills have these lines, which are taken from the amortized one"
_DIFFERENCE = "difference of the bills"
_BOTH = "lines of both bills"


def _in_both(name: str) -> Kind:
    """Return the kind of the amortized bill's lines whose cost is the actual one as well."""
    return Kind(name, f"charge_type = '{name}'", (Charge(name),), _IN_BOTH, _BOTH)


_KINDS = (
    Kind(
        _DIFFERENCE,
        f"dataset = '{_DIFFERENCE}'",
        (
            Charge(
                _DIFFERENCE,
                {
                    **_NOT_EFFECTIVE,
                    "ListCost": "0",
                    "ContractedCost": "0",
                    "ChargeDescription": "'Difference of the actual from the amortized bill'",
                    "ChargePeriodEnd": "last_date + INTERVAL 1 DAY",
                },
            ),
        ),
        "what the actual bill has for these lines beyond the amortized one, so that both sums hold",
        _BOTH,
        is_extra=True,
    ),
    Kind(
        "purchase of a commitment",
        f"dataset = 'actual' AND {_IS_PURCHASE}",
        (Charge("purchase of a commitment", {**_OF_COMMITMENT, **_NOT_EFFECTIVE}),),
    ),
    Kind("line of the actual bill", "dataset = 'actual'", (), _IN_BOTH, _BOTH),
    Kind(
        "purchase of a commitment in the amortized bill",
        _IS_PURCHASE,
        (),
        "the actual bill has the purchase; its effective cost is that of its use",
    ),
    Kind("unused commitment", _IS_UNUSED, (Charge("unused commitment", _UNUSED),)),
    Kind("usage under a commitment", _IS_COVERED, (Charge("usage under a commitment", _USED),)),
    *map(_in_both, ("usage", "purchase", "refund", "tax", "credit", "adjustment")),
)

# The two exports are written apart: of other runs, or rounded otherwise, a line's costs may differ.
_DIFFERENCES = f"""
    SELECT any_value(billingaccountid) AS billingaccountid,
        any_value(billingaccountname) AS billingaccountname,
        any_value(billingprofileid) AS billingprofileid,
        any_value(billingprofilename) AS billingprofilename,
        min(billingperiodstartdate) AS billingperiodstartdate,
        max(billingperiodenddate) AS billingperiodenddate,
        min(date) AS date, max(date) AS last_date,
        any_value(subscriptionname) AS subscriptionname,
        billingcurrency, subscriptionid, metercategory, chargetype,
        'adjustment' AS charge_type, 'Adjustment' AS category, '{_DIFFERENCE}' AS dataset,
        sum(CASE dataset WHEN 'actual' THEN {_COST} ELSE -{_COST} END) AS {_COST}
    FROM bill
    WHERE NOT ({_IS_PURCHASE} OR dataset = 'amortized' AND ({_IS_UNUSED} OR {_IS_COVERED}))
    GROUP BY billingcurrency, subscriptionid, metercategory, chargetype
    HAVING sum(CASE dataset WHEN 'actual' THEN {_COST} ELSE -{_COST} END) <> 0"""

_KNOWS_SERVICE = "service_is_known OR meter_is_known OR consumed_is_known"
AZURE_USAGE = FocusMapping(
    "azure usage",
    _INPUTS,
    _KINDS,
    _MAPPED,
    _DERIVED,
    (
        Lookup("type", "azure_resource_types.csv", ("resource_type",)),
        Lookup(
            "service",
            "azure_services.csv",
            (
                "resource_type",
                """CASE WHEN resource_type IN ('microsoft.security/pricings', 'microsoft.web/sites')
                AND lower(consumedservice) IN ('appservices', 'containerregistry', 'functions',
                'kubernetesservice', 'virtualmachines') THEN lower(consumedservice)
                ELSE 'any' END""",
            ),
        ),
        Lookup(
            "meter",
            "azure_meter_categories.csv",
            ("CASE WHEN NOT service_is_known THEN lower(metercategory) END",),
        ),
        Lookup(
            "consumed",
            "azure_consumed_services.csv",
            ("CASE WHEN NOT (service_is_known OR meter_is_known) THEN lower(consumedservice) END",),
        ),
        Lookup(
            "named",
            "azure_service_names.csv",
            (f"CASE WHEN NOT ({_KNOWS_SERVICE}) THEN metercategory END",),
        ),
        Lookup("region", "azure_regions.csv", (f"lower({_known('resourcelocation')})",)),
        Lookup("unit", "azure_units.csv", ("lower(trim(unitofmeasure))",)),
    ),
    steps=_STEPS,
    headline=f"CASE dataset WHEN 'actual' THEN {_COST} ELSE 0 END",
    amortized=f"CASE dataset WHEN 'amortized' THEN {_COST} ELSE 0 END",
    currency="billingcurrency",
    line_items=f"""CASE WHEN dataset = '{_DIFFERENCE}' THEN []
        ELSE [dataset || ' ' || CAST(line_number AS VARCHAR)] END""",
    extra_lines=_DIFFERENCES,
    kept=frozenset({*_TEXTS, *_NUMBERS, *_TIMES, *sum(_OTHER_NAMES.values(), ())}) - {*_UNCHANGED},
)
