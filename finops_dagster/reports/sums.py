"""Sums of the charges for a report, in temporary tables of a database in memory.

The files are read once for each of three groupings by columns of the charges, which is fast. All
other sums are computed from these groups, except those of resources and tag keys.
"""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.focus.month import FOCUS_VERSION
from finops_dagster.focus.specification import Specification
from finops_dagster.reports.relations import ACCOUNT_JOINS

NONE = "(none)"
"""The name of an account, a service or a region that a charge does not have."""


def _text(*columns: str) -> Sql:
    """Return SQL for the first of these columns that has a text, else `(none)`."""
    texts = Sql(", ").join(Sql(f"nullif({quoted(column)}, '')") for column in columns)
    return Sql(f"coalesce({texts}, {literal(NONE)})")


_LINES = Sql("own.rowid AS own_line, billed.rowid AS billed_line")
_COLUMNS = Sql(
    "x_billing_month, x_export, BillingCurrency, ProviderName, SubAccountId, BillingAccountId, "
    f"{_LINES}"
)
_KEYS = Sql(
    "x_billing_month AS month, x_export AS export, "
    f"{_text('BillingCurrency')} AS currency, {_text('ProviderName')} AS provider, "
    f"{_text('SubAccountId', 'BillingAccountId')} AS account, "
    "coalesce(own_line, -1) AS own_line, coalesce(billed_line, -1) AS billed_line"
)
_SERVICE = Sql(f"{_text('ServiceName')} AS service, {_text('ServiceCategory')} AS category")
_COSTS = Sql("coalesce(sum(BilledCost), 0) AS billed, coalesce(sum(EffectiveCost), 0) AS effective")
# A charge has the first of these kinds that fits. A correction is a refund or, where it asks for
# more, an adjustment. Amazon publishes services of AWS under names that do not begin with AWS.
_KIND = Sql("""
CASE WHEN ChargeCategory IN ('Credit', 'Tax') THEN ChargeCategory
     WHEN ChargeClass = 'Correction' THEN if(is_negative, 'Refund', 'Adjustment')
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
# Only the charges that are made from AWS's CUR have it: the last second of the commitment, as text.
_COMMITMENT_END = Sql("CAST(x_commitmentdiscountend AS VARCHAR)")
_IS_USAGE = Sql("(ChargeCategory = 'Usage' AND ChargeClass IS NULL)")
_IS_UNUSED = Sql("(CommitmentDiscountStatus IS NOT DISTINCT FROM 'Unused')")
# The vendors' own tags, such as aws:createdBy, are no tags of the company: a key that begins with
# `aws:` lies between `aws:` and `aws;`.
_IS_TAGGED = Sql(
    "coalesce(list_min(map_keys(Tags)) < 'aws:' OR list_max(map_keys(Tags)) >= 'aws;', false)"
)


def _sum(column: str, condition: Sql) -> Sql:
    """Return SQL for the sum of a column over the charges that fulfil the condition."""
    return Sql(f"coalesce(sum({quoted(column)}) FILTER ({condition}), 0)")


def create_cost_and_usage_sums(
    connection: DuckDBPyConnection, charges: Sql, charges_by_day: Sql
) -> None:
    """Create the temporary tables `cost_sums` and `usage_sums`.

    `charges` and `charges_by_day` are what follows FROM to read charges. Both tables have rows by
    `month`, `export`, `currency`, `provider`, `account`, `own_line` and `billed_line`. `account` is
    the id of the sub account, or else of the billing account; a name that charges lack is `(none)`.
    `own_line` is the rowid in `account_spellings` of the sub account's line. If it has none,
    `billed_line` is that of the billing account's line. Without a line, they are -1.

    `cost_sums` has the costs `billed` and `effective` of all charges three times: by `service` and
    `category`, by `region`, and by `kind`. The costs of `charges_by_day` are also in it by `day`.
    A row of one grouping has NULL in the columns of the others, so choose one grouping before you
    add up. `usage` is the effective cost of a service's usage; NULL if it has none.

    `usage_sums` has all charges once, by `commitment`, which is NULL for charges that are not usage
    of a commitment. `charges` is their number, `billed` and `effective` are their costs. These
    columns are of usage only: `list` and `contracted` (without unused commitments), and the
    effective costs `usage`, `used` and `unused` (of commitments), `tagged` and `untagged` (of
    resources). `account_name`, `commitment_type` and `commitment_end` are texts.

    Needs the table of `create_account_spellings`.
    """
    usage = Sql(f"sum(EffectiveCost) FILTER ({_IS_USAGE}) AS usage")
    _group(connection, "by_service", charges, Sql(f"ServiceName, ServiceCategory, {usage}"))
    _group(connection, "by_day", charges_by_day, Sql(f"{_DAY} AS day"))
    _group(
        connection,
        "by_use",
        charges,
        Sql(
            "RegionName, RegionId, "
            "SubAccountName, BillingAccountName, PublisherName, ServiceSubcategory, "
            "ChargeCategory, ChargeClass, BilledCost < 0 AS is_negative, CommitmentDiscountId, "
            "CommitmentDiscountType, CommitmentDiscountStatus, "
            f"max({_COMMITMENT_END}) AS commitment_end, "
            f"ResourceId IS NOT NULL AS has_resource, {_IS_TAGGED} AS is_tagged, "
            "sum(ListCost) AS ListCost, sum(ContractedCost) AS ContractedCost, count(*) AS charges"
        ),
    )
    region = _text("RegionName", "RegionId")
    connection.execute(
        "CREATE TEMP TABLE cost_sums AS "
        f"SELECT {_KEYS}, {_SERVICE}, {_COSTS}, sum(usage) AS usage FROM by_service GROUP BY ALL "
        f"UNION ALL BY NAME SELECT {_KEYS}, {region} AS region, {_COSTS} FROM by_use GROUP BY ALL "
        f"UNION ALL BY NAME SELECT {_KEYS}, {_KIND} AS kind, {_COSTS} FROM by_use GROUP BY ALL "
        f"UNION ALL BY NAME SELECT {_KEYS}, day, {_COSTS} FROM by_day GROUP BY ALL"
    )
    _create_usage_sums(connection)


def _create_usage_sums(connection: DuckDBPyConnection) -> None:
    used = Sql(f"{_IS_USAGE} AND NOT {_IS_UNUSED}")
    committed = Sql(f"{_IS_USAGE} AND CommitmentDiscountId IS NOT NULL")
    with_resource = Sql(f"{_IS_USAGE} AND has_resource")
    connection.execute(
        f"CREATE TEMP TABLE usage_sums AS SELECT {_KEYS}, "
        "max(if(SubAccountId IS NULL, BillingAccountName, SubAccountName)) AS account_name, "
        f"if({committed}, CommitmentDiscountId, NULL) AS commitment, "
        f"if({committed}, CommitmentDiscountType, NULL) AS commitment_type, "
        f"max(commitment_end) FILTER ({committed}) AS commitment_end, "
        f"sum(charges) AS charges, {_COSTS}, "
        f"{_sum('ListCost', used)} AS list, {_sum('ContractedCost', used)} AS contracted, "
        f"{_sum('EffectiveCost', _IS_USAGE)} AS usage, "
        f"{_sum('EffectiveCost', Sql(f'{committed} AND NOT {_IS_UNUSED}'))} AS used, "
        f"{_sum('EffectiveCost', Sql(f'{committed} AND {_IS_UNUSED}'))} AS unused, "
        f"{_sum('EffectiveCost', Sql(f'{with_resource} AND is_tagged'))} AS tagged, "
        f"{_sum('EffectiveCost', Sql(f'{with_resource} AND NOT is_tagged'))} AS untagged "
        "FROM by_use GROUP BY ALL"
    )


def create_resource_sums(connection: DuckDBPyConnection, charges: Sql) -> None:
    """Create the table `resource_sums`: the costs of each resource by month and currency.

    `charges` is what follows FROM to read charges; those without a resource are left out. The
    columns are `month`, `currency`, `account`, `service`, `resource` (its id), `name`, `detail`
    (its type), `billed`, `effective` and `untagged`. Account and service are the positions of their
    lines in the report. `untagged` is the effective cost of usage without a tag; the vendors' own
    tags do not count. Needs the tables of `add_lines`.
    """
    is_untagged = Sql(f"{_IS_USAGE} AND NOT {_IS_TAGGED}")
    connection.execute(f"""
        CREATE TEMP TABLE resource_sums AS
        SELECT month, currency, account_lines.position AS account,
            service_lines.position AS service, ResourceId AS resource,
            any_value(ResourceName) AS name, any_value(ResourceType) AS detail,
            {_COSTS}, {_sum("EffectiveCost", Sql("is_untagged"))} AS untagged
        FROM (
            SELECT {_KEYS}, {_SERVICE}, ResourceId, ResourceName, ResourceType, BilledCost,
                EffectiveCost, {is_untagged} AS is_untagged
            FROM (SELECT *, {_LINES} FROM {_charges(connection, charges)})
            WHERE ResourceId IS NOT NULL
        )
        JOIN account_lines USING (provider, account, own_line, billed_line)
        JOIN service_lines USING (provider, category, service)
        GROUP BY ALL
    """)


def create_tag_key_sums(connection: DuckDBPyConnection, charges: Sql) -> None:
    """Create the table `tag_key_sums`: the effective cost of usage with each tag key.

    `charges` is what follows FROM to read charges. The columns are `month`, `currency`, `account`,
    `key` and `tagged`, the cost. Usage with several tags counts for each of their keys. As in
    `usage_sums`, usage without a resource and the vendors' own tags do not count. Accounts are the
    positions of their lines in the report. Needs the tables of `add_lines`.
    """
    usage = Sql(f"EffectiveCost) FILTER ({_IS_USAGE} AND ResourceId IS NOT NULL")
    _group(connection, "by_tags", charges, Sql(f"map_keys(Tags) AS keys, sum({usage}) AS tagged"))
    connection.execute(f"""
        CREATE TEMP TABLE tag_key_sums AS
        SELECT month, currency, position AS account, key, sum(tagged) AS tagged
        FROM (SELECT {_KEYS}, unnest(list_distinct(keys)) AS key, tagged FROM by_tags)
        JOIN account_lines USING (provider, account, own_line, billed_line)
        WHERE NOT starts_with(key, 'aws:') GROUP BY ALL
    """)


def _group(connection: DuckDBPyConnection, table: str, rows: Sql, columns: Sql) -> None:
    """Create a table of charges in groups, which have the costs that their charges have in all.

    They are grouped by their accounts and months, and by the `columns` that are no aggregates.
    """
    connection.execute(
        f"CREATE TEMP TABLE {quoted(table)} AS SELECT {_COLUMNS}, {columns}, "
        "sum(BilledCost) AS BilledCost, sum(EffectiveCost) AS EffectiveCost "
        f"FROM {_charges(connection, rows)} GROUP BY ALL"
    )


def _charges(connection: DuckDBPyConnection, rows: Sql) -> Sql:
    """Return what follows FROM to read charges with their lines of the accounts file."""
    # A mapping may lack columns of FOCUS.
    columns = Sql(", ").join(
        Sql(f"CAST(NULL AS {column.type.sql_type}) AS {quoted(column.name)}")
        for column in Specification.load(FOCUS_VERSION).columns
    )
    columns = Sql(f"{columns}, NULL AS x_commitmentdiscountend")
    charges = Sql(f"(FROM {rows} UNION ALL BY NAME SELECT {columns} WHERE false)")
    if connection.execute("FROM account_spellings LIMIT 1").fetchone() is None:
        # To join nothing takes time, too.
        return Sql(f"{charges}, (SELECT NULL AS rowid) AS own, (SELECT NULL AS rowid) AS billed")
    return Sql(f"{charges} {ACCOUNT_JOINS}")
