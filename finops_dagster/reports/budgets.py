"""Budgets: an amount a month for a part of the bill, and what was spent of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from finops_dagster.billing.columns import Sql, literal
from finops_dagster.billing.errors import excerpt, excerpts
from finops_dagster.billing.money import exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports.charges import CHARGES
from finops_dagster.settings_table import SettingsTable

if TYPE_CHECKING:  # The settings are read by commands that do not need DuckDB.
    from duckdb import DuckDBPyConnection

_NONE = "(none)"
_NAMES_SHOWN = 8
# Charges that arrive together have a last day with usage, which vendors may not have whole yet.
_SPENT = Sql("""
SELECT month, last_day, {spent}
FROM (
    SELECT *, max(day) FILTER (has_usage) OVER (PARTITION BY {keys}) AS last_day
    FROM (
        SELECT x_billing_month AS month, x_export AS export, ProviderName AS provider,
            BillingCurrency AS currency,
            day(least(
                greatest(CAST(ChargePeriodStart AS DATE), x_billing_month),
                last_day(x_billing_month)
            )) AS day,
            bool_or(ChargeCategory = 'Usage') AS has_usage, {sums}
        FROM ({charges}) GROUP BY month, export, provider, currency, day
    )
)
GROUP BY {keys}, last_day
""")


def _as_list(names: object) -> object:
    return [names] if isinstance(names, str) else names


def _unique(budgets: tuple[BudgetSettings, ...]) -> tuple[BudgetSettings, ...]:
    names = [budget.name for budget in budgets]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two budgets have the name {excerpt(name)}; give each its own")
    return budgets


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One name or several, of which any may match; `(none)` is what has no name."""


class BudgetSettings(SettingsTable):
    """An amount of one currency a month, for the charges that match all filters.

    Names are compared without case. `account` is an id or a name.
    """

    name: Text
    amount: Annotated[Decimal, Field(gt=0)]
    currency: Text
    cost: Literal["effective", "billed"] = "effective"
    provider: Names | None = None
    account: Names | None = None
    owner: Names | None = None
    service: Names | None = None
    tag: Mapping[Text, Names] = {}

    @property
    def filters(self) -> Iterator[tuple[str, str]]:
        """Yield each name of each filter; the filter of a tag is called `tag.<key>`."""
        for key in ("provider", "account", "owner", "service"):
            for name in getattr(self, key) or ():
                yield key, name
        for key, values in self.tag.items():
            for value in values:
                yield f"tag.{key}", value

    @property
    def filter_text(self) -> str:
        """The filters in one line; empty for a budget of the whole bill."""
        names = defaultdict(list)
        for key, name in self.filters:
            names[key].append(name)
        return " and ".join(f"{key} = {' or '.join(of_key)}" for key, of_key in names.items())


Budgets = Annotated[tuple[BudgetSettings, ...], AfterValidator(_unique)]
"""The blocks `[[budgets]]` of the settings, each with a name of its own."""


@dataclass(frozen=True)
class BudgetMonth:
    """What was spent of a budget in a month, exactly.

    `days_passed` is the number of days that the bill has of a month in progress, of the provider
    that has the fewest; None once the month is over. `forecast` is what the month costs if each day
    costs as much as those before the newest, which may not be whole yet; None without such a day.
    The month `is_open` between its end and the day by which vendors have closed it.
    """

    budget: BudgetSettings
    month: BillingMonth
    spent: Decimal
    days_passed: int | None
    forecast: Decimal | None
    is_open: bool = False

    @property
    def is_exceeded(self) -> bool:
        """Whether more was spent than the amount."""
        return self.spent > self.budget.amount

    @property
    def percent_spent(self) -> Decimal:
        """The percentage of the amount that was spent, with one decimal."""
        return round(100 * self.spent / self.budget.amount, 1)

    @property
    def percent_passed(self) -> Decimal:
        """The percentage of the month that has passed, with one decimal; 100 once it is over."""
        days = _day_count(self.month)
        passed = days if self.days_passed is None else self.days_passed
        return round(Decimal(100 * passed) / days, 1)

    @property
    def state(self) -> str:
        """What became of the budget, or how it stands as long as its month is open."""
        if self.is_exceeded:
            return "exceeded"
        if self.days_passed is None:
            return "open" if self.is_open else "within budget"
        is_ahead = self.forecast is not None and self.forecast > self.budget.amount
        return "forecast to exceed" if is_ahead else "in progress"

    @property
    def sentence(self) -> str:
        """How the budget stands, in one sentence."""
        budget, currency = self.budget, self.budget.currency
        text = (
            f"Budget {budget.name}: {self.spent:,.2f} of {budget.amount:,.2f} {currency} "
            f"{'was' if self.days_passed is None else 'is'} spent in {self.month}"
        )
        if self.days_passed is not None:
            text += f", with {self.days_passed} of {_day_count(self.month)} days passed"
            if self.forecast is not None:
                text += f"; at this rate the month costs {self.forecast:,.2f} {currency}"
        return f"{text}, which is still open." if self.is_open else f"{text}."


def budget_months(
    connection: DuckDBPyConnection, budgets: Sequence[BudgetSettings], today: date | None = None
) -> list[BudgetMonth]:
    """Return each budget in each month of the bill, the newest month first.

    Needs the relation `focus_named`. `today`, in UTC, tells which months are over.
    """
    if not budgets:
        return []
    today = today or datetime.now(UTC).date()
    sums = Sql(", ").join(
        Sql(f"sum({_cost(budget)}) FILTER ({_matches(budget)}) AS sum_{number}")
        for number, budget in enumerate(budgets)
    )
    spent = Sql(", ").join(
        Sql(f"sum(sum_{number}), sum(sum_{number}) FILTER (day < last_day)")
        for number in range(len(budgets))
    )
    query = _SPENT.format(
        spent=spent, sums=sums, charges=CHARGES, keys="month, export, provider, currency"
    )
    by_month = defaultdict(list)
    for first_day, last_day, *amounts in connection.execute(query).fetchall():
        by_month[BillingMonth.of(first_day)].append((last_day, amounts))
    return [
        _budget_month(
            budget,
            month,
            [_Part(day, *amounts[2 * number : 2 * number + 2]) for day, amounts in parts],
            today,
        )
        for month, parts in sorted(by_month.items(), reverse=True)
        for number, budget in enumerate(budgets)
    ]


@dataclass(frozen=True)
class _Part:
    """The charges of a month that arrive together: of an export, a provider and a currency.

    `last_day` is the last one with usage; None without usage. `spent` of a budget is None if no
    charge matches it, `spent_before` if none of the days before the last day does.
    """

    last_day: int | None
    spent: Decimal | None
    spent_before: Decimal | None

    @property
    def has_whole_day(self) -> bool:
        """Whether the charges have a day that vendors have sent whole: one before the last."""
        return self.last_day is not None and self.last_day > 1

    def forecast(self, days: int) -> Decimal:
        """Return what a month of so many days costs; without a whole day, what was spent so far."""
        spent = self.spent or Decimal(0)
        if self.last_day is None or not self.has_whole_day:
            return spent
        return max(spent, (self.spent_before or Decimal(0)) * days / (self.last_day - 1))


def _budget_month(
    budget: BudgetSettings, month: BillingMonth, parts: Sequence[_Part], today: date
) -> BudgetMonth:
    """Return a budget in a month, from the parts of the month that have charges of the budget."""
    # Without any charge, the month has come as far as the whole bill.
    counted = [part for part in parts if part.spent is not None] or parts
    spent = exact_sum(part.spent or Decimal(0) for part in counted)
    if month < BillingMonth.of(today):
        return BudgetMonth(budget, month, spent, None, spent, is_open=today < month.closing_day)
    days = [part.last_day for part in counted if part.last_day is not None]
    forecast = sum((part.forecast(_day_count(month)) for part in counted), Decimal(0))
    is_known = any(part.has_whole_day for part in counted)
    return BudgetMonth(budget, month, spent, min(days, default=0), forecast if is_known else None)


def _day_count(month: BillingMonth) -> int:
    return (month.next.first_day - month.first_day).days


def unmatched_filters(
    connection: DuckDBPyConnection, budgets: Sequence[BudgetSettings]
) -> list[str]:
    """Return a line for each budget with a filter that matches no charge of any month.

    Needs the relation `focus_named`.
    """
    if not budgets:
        return []
    filters = [(budget, key, name) for budget in budgets for key, name in budget.filters]
    by_name = [_matches_name(key, [name]) for _, key, name in filters]
    counts = Sql(", ").join(
        Sql(f"count(*) FILTER ({sql})") for sql in [*by_name, *map(_matches, budgets)]
    )
    row = connection.execute(f"SELECT {counts} FROM ({CHARGES})").fetchone() or ()
    lines: dict[str, str] = {}
    for (budget, key, name), matches in zip(filters, row, strict=False):
        if not matches:
            names = f"{key} {excerpt(name)}; {_names_of_charges(connection, key)}"
            lines.setdefault(budget.name, f"no charge of any month has the {names}")
    for budget, matches in zip(budgets, row[len(filters) :], strict=True):
        if not matches:
            filters_text = " and ".join(
                filter(None, [budget.filter_text, f"currency = {budget.currency}"])
            )
            lines.setdefault(budget.name, f"no charge of any month has {filters_text}")
    return [f"budget {excerpt(name)}: {line}" for name, line in lines.items()]


def _names_of_charges(connection: DuckDBPyConnection, key: str) -> str:
    """Return what the charges with the highest costs have where a filter compares names."""
    text = _texts(key)[-1]
    names = connection.execute(
        f"SELECT {text} AS name FROM ({CHARGES}) WHERE name <> '' GROUP BY name "
        f"ORDER BY sum(abs(EffectiveCost)) DESC LIMIT {_NAMES_SHOWN + 1}"
    ).fetchall()
    return f"they have {excerpts([name for (name,) in names], _NAMES_SHOWN) or 'none'}"


def _cost(budget: BudgetSettings) -> Sql:
    return Sql("EffectiveCost") if budget.cost == "effective" else Sql("BilledCost")


def _matches(budget: BudgetSettings) -> Sql:
    """Return the condition that a charge matches the currency and all filters of a budget."""
    names: dict[str, list[str]] = defaultdict(list)
    for key, name in budget.filters:
        names[key].append(name)
    conditions = [_matches_name(key, of_key) for key, of_key in names.items()]
    currency = Sql(f"lower(BillingCurrency) = {literal(budget.currency.lower())}")
    all_conditions = Sql(" AND ").join([currency, *conditions])
    return Sql(f"({all_conditions})")


def _matches_name(key: str, names: Sequence[str]) -> Sql:
    """Return the condition that a charge has one of the names."""
    wanted = Sql(", ").join(literal(name.lower()) for name in names)
    alternatives = Sql(" OR ").join(
        Sql(f"coalesce(nullif(lower({text}), ''), {literal(_NONE)}) IN ({wanted})")
        for text in _texts(key)
    )
    return Sql(f"({alternatives})")


def _texts(key: str) -> Sequence[Sql]:
    """Return the texts of a charge that a filter compares."""
    if key.startswith("tag."):
        tag = literal(key.removeprefix("tag.").lower())
        entries = Sql(f"list_filter(map_entries(Tags), lambda entry: lower(entry.key) = {tag})")
        return [Sql(f"{entries}[1].value")]
    return _TEXTS[key]


# People leave out the path with which the ids of Azure's subscriptions begin.
_TEXTS: Mapping[str, Sequence[Sql]] = {
    "provider": [Sql("ProviderName")],
    "account": [
        Sql("regexp_replace(coalesce(SubAccountId, BillingAccountId), '^/subscriptions/', '')"),
        Sql("coalesce(SubAccountId, BillingAccountId)"),
        Sql("AccountName"),
    ],
    "owner": [Sql("AccountOwner")],
    "service": [Sql("ServiceName")],
}
