"""The column names of an AWS CUR v1 export and the types its manifest gives them.

A CUR header is `category/Name` and the set of columns is dynamic: AWS adds a product column when
some service in the bill needs it, and a tag column for every activated cost allocation tag.
"""


def _family(category: str, names: str) -> tuple[str, ...]:
    """Expand space-separated names to headers."""
    return tuple(f"{category}/{name}" for name in names.split())


# Column families in the order AWS writes them.
FAMILIES = (
    "identity",
    "bill",
    "lineItem",
    "product",
    "pricing",
    "reservation",
    "savingsPlan",
    "discount",
    "resourceTags",
    "costCategory",
)

# Columns of every export, in AWS's order.
CORE_HEADERS = (
    *_family("identity", "LineItemId TimeInterval"),
    *_family(
        "bill",
        "InvoiceId InvoicingEntity BillingEntity BillType PayerAccountId"
        " BillingPeriodStartDate BillingPeriodEndDate",
    ),
    *_family(
        "lineItem",
        "UsageAccountId LineItemType UsageStartDate UsageEndDate ProductCode UsageType Operation"
        " AvailabilityZone ResourceId UsageAmount NormalizationFactor NormalizedUsageAmount"
        " CurrencyCode UnblendedRate UnblendedCost BlendedRate BlendedCost LineItemDescription"
        " TaxType LegalEntity",
    ),
    *_family(
        "product",
        "ProductName instanceType location operation productFamily region regionCode servicecode"
        " servicename sku usagetype",
    ),
    *_family("pricing", "RateCode RateId currency publicOnDemandCost publicOnDemandRate term unit"),
    *_family(
        "reservation",
        "AmortizedUpfrontCostForUsage AmortizedUpfrontFeeForBillingPeriod EffectiveCost"
        " RecurringFeeForUsage ReservationARN UnusedAmortizedUpfrontFeeForBillingPeriod"
        " UnusedRecurringFee",
    ),
    *_family(
        "savingsPlan",
        "TotalCommitmentToDate SavingsPlanARN SavingsPlanRate UsedCommitment"
        " SavingsPlanEffectiveCost AmortizedUpfrontCommitmentForBillingPeriod"
        " RecurringCommitmentForBillingPeriod",
    ),
    *_family("resourceTags", "aws:createdBy user:Name user:cost-center user:environment user:team"),
    *_family("costCategory", "Organization"),
)

# Columns added one by one, in this order, until the export is as wide as asked for. The first
# half holds values in some rows of the example bill; the rest exist because real bills are wide
# and mostly empty.
EXTRA_HEADERS = (
    *_family(
        "product",
        "vcpu memory instanceFamily operatingSystem tenancy group groupDescription"
        " storageClass volumeType fromLocation fromLocationType fromRegionCode toLocation"
        " toLocationType toRegionCode transferType databaseEngine deploymentOption licenseModel"
        " availability durability",
    ),
    "resourceTags/user:app",
    "resourceTags/user:data classification",
    *_family("discount", "EdpDiscount TotalDiscount"),
    *_family("pricing", "LeaseContractLength OfferingClass PurchaseOption"),
    *_family("savingsPlan", "OfferingType PaymentOption PurchaseTerm StartTime EndTime"),
    *_family(
        "reservation", "SubscriptionId StartTime EndTime NumberOfReservations UnitsPerReservation"
    ),
    "costCategory/Charge type",
    *_family(
        "product",
        "locationType clockSpeed physicalProcessor processorArchitecture networkPerformance"
        " normalizationSizeFactor currentGeneration capacitystatus preInstalledSw"
        " instanceTypeFamily marketoption storage storageMedia volumeApiName maxThroughputvolume"
        " maxVolumeSize maxIopsvolume queueType messageDeliveryFrequency messageDeliveryOrder"
        " engineCode feeCode feeDescription dedicatedEbsThroughput ecu"
        " enhancedNetworkingSupported eventType intelAvx2Available intelAvxAvailable"
        " intelTurboAvailable processorFeatures memoryGib vpcnetworkingsupport"
        " classicnetworkingsupport accountAssistance architecturalReview architectureSupport"
        " availabilityZone bestPractices caseSeverityresponseTimes comments contentType"
        " customerServiceAndCommunities description directorySize directoryType"
        " directoryTypeDescription ebsOptimized edition endpointType includedServices isshadow"
        " iswebsocket launchSupport maxIopsBurstPerformance minVolumeSize operationsSupport"
        " origin overhead physicalCores platousagetype platovolumetype proactiveGuidance"
        " productType programmaticCaseManagement protocol provisioned recipient"
        " requestDescription requestType resourceEndpoint routingTarget routingType softwareType"
        " storageType subscriptionType technicalSupport thirdpartySoftwareSupport training"
        " version virtualInterfaceType whoCanOpenCases",
    ),
    *_family(
        "reservation",
        "AvailabilityZone ModificationStatus NormalizedUnitsPerReservation"
        " TotalReservedNormalizedUnits TotalReservedUnits UnusedNormalizedUnitQuantity"
        " UnusedQuantity UpfrontValue",
    ),
    *_family("savingsPlan", "InstanceTypeFamily Region"),
    *_family(
        "resourceTags",
        "user:Kostenträger user:preference user:stack user:storageclass user:version",
    ),
    *_family("costCategory", "OUs cost_env"),
)

HEADERS = CORE_HEADERS + EXTRA_HEADERS

_TYPES = {
    "BigDecimal": {
        *_family("lineItem", "UsageAmount UnblendedCost BlendedCost"),
        *_family("pricing", "publicOnDemandCost"),
    },
    "OptionalBigDecimal": {
        *_family("lineItem", "NormalizationFactor NormalizedUsageAmount"),
        *_family(
            "reservation",
            "AmortizedUpfrontCostForUsage AmortizedUpfrontFeeForBillingPeriod EffectiveCost"
            " RecurringFeeForUsage UnusedAmortizedUpfrontFeeForBillingPeriod"
            " UnusedNormalizedUnitQuantity UnusedQuantity UnusedRecurringFee UpfrontValue",
        ),
        *_family(
            "savingsPlan",
            "TotalCommitmentToDate SavingsPlanRate UsedCommitment SavingsPlanEffectiveCost"
            " AmortizedUpfrontCommitmentForBillingPeriod RecurringCommitmentForBillingPeriod",
        ),
        *_family("discount", "EdpDiscount TotalDiscount"),
    },
    "DateTime": {
        *_family("bill", "BillingPeriodStartDate BillingPeriodEndDate"),
        *_family("lineItem", "UsageStartDate UsageEndDate"),
    },
    "Interval": {"identity/TimeInterval"},
    # Rates and counts of reservations are numbers to the eye, but AWS types them as text.
    "String": {
        *_family(
            "lineItem",
            "UsageAccountId LineItemType ProductCode UsageType Operation CurrencyCode"
            " UnblendedRate BlendedRate LineItemDescription LegalEntity",
        ),
        *_family("bill", "InvoicingEntity BillingEntity BillType PayerAccountId"),
        *_family("identity", "LineItemId"),
        *_family("pricing", "publicOnDemandRate"),
        *_family(
            "reservation",
            "NormalizedUnitsPerReservation TotalReservedNormalizedUnits TotalReservedUnits"
            " UnitsPerReservation",
        ),
    },
}


def manifest_type(header: str) -> str:
    """Return the type name AWS's manifest gives a column, "OptionalString" for most."""
    return next((name for name, headers in _TYPES.items() if header in headers), "OptionalString")


def choose_headers(columns: int) -> list[str]:
    """Return exactly `columns` headers: the core ones, filled up, in the order AWS writes them.

    Inside the product, tag and cost category families AWS sorts by name, capitals first.
    """
    if not len(CORE_HEADERS) <= columns <= len(HEADERS):
        raise ValueError(f"columns must be {len(CORE_HEADERS)} to {len(HEADERS)}, not {columns}")
    chosen = HEADERS[:columns]
    return [header for family in FAMILIES for header in _ordered(family, chosen)]


def _ordered(family: str, headers: tuple[str, ...]) -> list[str]:
    """Return one family's headers, sorted by name in the families that grow with the bill."""
    own = [header for header in headers if header.startswith(f"{family}/")]
    return own if family in ("identity", "bill", "lineItem") else sorted(own)
