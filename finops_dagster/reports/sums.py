"""Sums of the charges by what a report shows, in temporary tables of a scratch database.

The files of charges are read once for `cost_sums` and `usage_sums`. Everything else is computed
from these two tables, and from `resource_sums`, which has the resources of few months.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, file_literal, literal, quoted

NONE = "(none)"
"""The name of an account, a service or a region that a charge does not have."""


def _text(*columns: str) -> Sql:
    """Return SQL for the first of these columns that has a text, else `(none)`."""
    texts = Sql(", ").join(Sql(f"nullif({quoted(column)}, '')") for column in columns)
    return Sql(f"coalesce({texts}, {literal(NONE)})")


# The columns that each table is grouped by.
_KEYS = Sql(
    "x_billing_month AS month, x_export AS export, "
    f"{_text('BillingCurrency')} AS currency, {_text('ProviderName')} AS provider, "
    f"{_text('SubAccountId', 'BillingAccountId')} AS account, "
    "coalesce(own.rowid, -1) AS own_line, coalesce(billed.rowid, -1) AS billed_line"
)
_SERVICE = Sql(f"{_text('ServiceName')} AS service, {_text('ServiceCategory')} AS category")
_COSTS = Sql("coalesce(sum(BilledCost), 0) AS billed, coalesce(sum(EffectiveCost), 0) AS effective")
# A charge has the first of these kinds that fits. A correction is a refund or, where it asks for
# more, an adjustment. Amazon publishes services of AWS under names that do not begin with AWS.
_KIND = Sql("""
CASE WHEN ChargeCategory IN ('Credit', 'Tax') THEN ChargeCategory
     WHEN ChargeClass = 'Correction' THEN if(BilledCost < 0, 'Refund', 'Adjustment')
     WHEN ServiceSubcategory = 'Support' THEN 'Support'
     WHEN NOT starts_with(PublisherName, ProviderName)
         AND NOT (ProviderName = 'AWS' AND starts_with(PublisherName, 'Amazon')) THEN 'Marketplace'
     WHEN ChargeCategory IN ('Usage', 'Purchase') THEN ChargeCategory
     ELSE 'Adjustment' END
""")
# Charges that begin outside of their month count on its first or last day, so that the days of a
# month add up to it.
_DAY = Sql("""
day(least(greatest(CAST(ChargePeriodStart AS DATE), x_billing_month), last_day(x_billing_month)))
""")
_IS_USAGE = Sql("(ChargeCategory = 'Usage' AND ChargeClass IS NULL)")
_IS_UNUSED = Sql("(CommitmentDiscountStatus IS NOT DISTINCT FROM 'Unused')")
# The vendors' own tags, such as aws:createdBy, are no tags of the company: a key that begins with
# `aws:` lies between `aws:` and `aws;`.
_IS_TAGGED = Sql(
    "coalesce(list_min(map_keys(Tags)) < 'aws:' OR list_max(map_keys(Tags)) >= 'aws;', false)"
)


# The lines of the accounts file for a charge: that of its own account, or else that of the account
# that is billed.
_FILE_LINES = Sql("""
LEFT JOIN accounts AS own
    ON own.account_id = SubAccountId
    AND ChargePeriodStart >= coalesce(own.valid_from, DATE '0001-01-01')
    AND ChargePeriodStart < coalesce(own.valid_to + 1, DATE '9999-12-31')
LEFT JOIN accounts AS billed
    ON own.account_id IS NULL
    AND billed.account_id = BillingAccountId
    AND ChargePeriodStart >= coalesce(billed.valid_from, DATE '0001-01-01')
    AND ChargePeriodStart < coalesce(billed.valid_to + 1, DATE '9999-12-31')
""")
_GROUPS = Sql("month, export, currency, provider, account, own_line, billed_line")


def _sum(column: str, condition: Sql) -> Sql:
    """Return SQL for the sum of a column over the charges that fulfil the condition."""
    return Sql(f"coalesce(sum({quoted(column)}) FILTER ({condition}), 0)")


def read_charges(connection: DuckDBPyConnection, files: Sequence[Path], first_day: date) -> None:
    """Create `cost_sums` and `usage_sums` from files of charges; months from `first_day` by day.

    `cost_sums` has the billed and the effective cost of each account four times: by service and
    category, by region, by kind and by day; the other columns of such a row are NULL. All charges
    of a month before `first_day` are on day 0. `usage_sums` has the costs of usage by account and
    commitment, and all charges of an account in `charges`.
    """
    charges = _charges(connection, files)
    region = _text("RegionName", "RegionId")
    day = Sql(f"if(x_billing_month >= DATE {literal(str(first_day))}, {_DAY}, 0)")
    connection.execute(
        "CREATE TEMP TABLE cost_sums AS "
        f"SELECT {_KEYS}, {_SERVICE}, {region} AS region, {_KIND} AS kind, {day} AS day, {_COSTS} "
        f"FROM {charges} GROUP BY {_GROUPS}, "
        "GROUPING SETS ((service, category), (region), (kind), (day))"
    )
    used = Sql(f"{_IS_USAGE} AND NOT {_IS_UNUSED}")
    committed = Sql(f"{_IS_USAGE} AND CommitmentDiscountId IS NOT NULL")
    with_resource = Sql(f"{_IS_USAGE} AND ResourceId IS NOT NULL")
    connection.execute(
        f"CREATE TEMP TABLE usage_sums AS SELECT {_KEYS}, "
        "max(if(SubAccountId IS NULL, BillingAccountName, SubAccountName)) AS account_name, "
        f"if({committed}, CommitmentDiscountId, NULL) AS commitment, "
        f"if({committed}, CommitmentDiscountType, NULL) AS commitment_type, "
        f"count(*) AS charges, {_COSTS}, "
        f"{_sum('ListCost', used)} AS list, {_sum('ContractedCost', used)} AS contracted, "
        f"{_sum('EffectiveCost', _IS_USAGE)} AS usage, "
        f"{_sum('EffectiveCost', Sql(f'{committed} AND NOT {_IS_UNUSED}'))} AS used, "
        f"{_sum('EffectiveCost', Sql(f'{committed} AND {_IS_UNUSED}'))} AS unused, "
        f"{_sum('EffectiveCost', Sql(f'{with_resource} AND {_IS_TAGGED}'))} AS tagged, "
        f"{_sum('EffectiveCost', Sql(f'{with_resource} AND NOT {_IS_TAGGED}'))} AS untagged "
        f"FROM {charges} GROUP BY {_GROUPS}, commitment, commitment_type"
    )


def read_resources(connection: DuckDBPyConnection, files: Sequence[Path]) -> None:
    """Create `resource_sums` from files of charges: the costs of each resource by month.

    `untagged` is the effective cost of its usage without a tag.
    """
    untagged = _sum("EffectiveCost", Sql(f"{_IS_USAGE} AND NOT {_IS_TAGGED}"))
    connection.execute(
        f"CREATE TEMP TABLE resource_sums AS SELECT {_KEYS}, {_SERVICE}, ResourceId AS resource, "
        "any_value(ResourceName) AS name, any_value(ResourceType) AS detail, "
        f"{_COSTS}, {untagged} AS untagged FROM {_charges(connection, files)} "
        "WHERE ResourceId IS NOT NULL "
        f"GROUP BY {_GROUPS}, service, category, resource"
    )


def _charges(connection: DuckDBPyConnection, files: Sequence[Path]) -> Sql:
    """Return what follows FROM to read charges with their lines of the accounts file."""
    paths = Sql(", ").join(map(file_literal, files))
    charges = Sql(f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)")
    if connection.execute("FROM accounts LIMIT 1").fetchone() is None:
        # To join nothing takes time, too.
        return Sql(f"{charges}, (SELECT NULL AS rowid) AS own, (SELECT NULL AS rowid) AS billed")
    return Sql(f"{charges} {_FILE_LINES}")
