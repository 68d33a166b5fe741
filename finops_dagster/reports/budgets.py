"""Budgets: a monthly amount for a part of the bill, and how much of it was spent."""

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
# The last day with usage of charges that are delivered together may be incomplete.
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
"""One name or several, of which any may match; `(none)` matches charges without a name."""


class BudgetSettings(SettingsTable):
    """A budget: an amount of one currency for each month, and filters of the charges.

    The budget is for the charges in its currency that match all filters. A filter with several
    names matches a charge that has one of them, and `(none)` matches a charge without a name. Names
    and currency are compared without case. `account` is an id or a name. `cost` is which cost of
    the charges is added up.
    """

    name: Text
    amount: Annotated[Decimal, Field(gt=0)]
    currency: Annotated[Text, AfterValidator(str.upper)]
    cost: Literal["effective", "billed"] = "effective"
    provider: Names | None = None
    account: Names | None = None
    owner: Names | None = None
    service: Names | None = None
    tag: Mapping[Text, Names] = {}

    @property
    def filters(self) -> Iterator[tuple[str, str]]:
        """Pairs of a filter and one of its names; the filter of a tag is called `tag.<key>`."""
        for key in ("provider", "account", "owner", "service"):
            for name in getattr(self, key) or ():
                yield key, name
        for key, values in self.tag.items():
            for value in values:
                yield f"tag.{key}", value

    @property
    def filter_text(self) -> str:
        """The filters as `account = a or b and service = c`; empty for a budget without filters."""
        names = defaultdict(list)
        for key, name in self.filters:
            names[key].append(name)
        return " and ".join(f"{key} = {' or '.join(of_key)}" for key, of_key in names.items())


Budgets = Annotated[tuple[BudgetSettings, ...], AfterValidator(_unique)]
"""The blocks `[[budgets]]` of the settings, each with a name of its own."""


@dataclass(frozen=True)
class BudgetMonth:
    """A budget in a month, with the exact amount that was `spent` of it.

    `days_passed` is the number of days of the current month whose usage the bill has; the smallest
    number if the exports or providers with charges of the budget differ. It is 0 if there is no
    usage yet, and None once the month is over. `forecast` is the cost of the whole month if the
    remaining days cost as much as the days before the newest one, which may be incomplete. It is
    `spent` at least, `spent` once the month is over, and None if no day is complete yet.
    `is_before_closing_day` is true from the end of the month until `BillingMonth.closing_day`.
    """

    budget: BudgetSettings
    month: BillingMonth
    spent: Decimal
    days_passed: int | None
    forecast: Decimal | None
    is_before_closing_day: bool = False

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
        """The `days_passed` as a percentage of the month, with one decimal; 100 once it is over."""
        days = _day_count(self.month)
        passed = days if self.days_passed is None else self.days_passed
        return round(Decimal(100 * passed) / days, 1)

    @property
    def state(self) -> str:
        """The state of the budget in its month.

        `exceeded` in any month. Otherwise, in the current month `forecast to exceed` or `in
        progress`; then `open` until `BillingMonth.closing_day`, and `within budget` from it on.
        """
        if self.is_exceeded:
            return "exceeded"
        if self.days_passed is None:
            return "open" if self.is_before_closing_day else "within budget"
        is_ahead = self.forecast is not None and self.forecast > self.budget.amount
        return "forecast to exceed" if is_ahead else "in progress"

    @property
    def sentence(self) -> str:
        """The state of the budget as a sentence for people."""
        budget, currency = self.budget, self.budget.currency
        text = (
            f"Budget {budget.name}: {self.spent:,.2f} of {budget.amount:,.2f} {currency} "
            f"{'was' if self.days_passed is None else 'is'} spent in {self.month}"
        )
        if self.days_passed is not None:
            text += f", with {self.days_passed} of {_day_count(self.month)} days passed"
            if self.forecast is not None:
                text += f"; at this rate the month costs {self.forecast:,.2f} {currency}"
        return f"{text}, which is still open." if self.is_before_closing_day else f"{text}."


def budget_months(
    connection: DuckDBPyConnection, budgets: Sequence[BudgetSettings], today: date | None = None
) -> list[BudgetMonth]:
    """Return each budget in each month of the bill, the newest month first.

    The budgets of a month are in the order of `budgets`, also those without any charge. Needs the
    relation `focus_named`, unless there are no budgets. Months before that of `today`, by default
    the current day in UTC, are over.
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
    """The charges of a month that vendors deliver together: of an export, provider and currency.

    `last_day` is the number of the last day with usage; None without usage. `spent` is the cost of
    a budget's charges, None if no charge matches; `spent_before` is that before the last day.
    """

    last_day: int | None
    spent: Decimal | None
    spent_before: Decimal | None

    @property
    def has_complete_day(self) -> bool:
        """Whether the charges have a complete day: one before the last day."""
        return self.last_day is not None and self.last_day > 1

    def forecast(self, days: int) -> Decimal:
        """Return the forecast for a month of `days` days; `spent` if no day is complete."""
        spent = self.spent or Decimal(0)
        if self.last_day is None or not self.has_complete_day:
            return spent
        return max(spent, (self.spent_before or Decimal(0)) * days / (self.last_day - 1))


def _budget_month(
    budget: BudgetSettings, month: BillingMonth, parts: Sequence[_Part], today: date
) -> BudgetMonth:
    """Return a budget in a month, from the parts of the month that have charges of the budget."""
    # If no charge matches the budget, the days that have passed are those of all charges.
    counted = [part for part in parts if part.spent is not None] or parts
    spent = exact_sum(part.spent or Decimal(0) for part in counted)
    if month < BillingMonth.of(today):
        return BudgetMonth(
            budget, month, spent, None, spent, is_before_closing_day=today < month.closing_day
        )
    days = [part.last_day for part in counted if part.last_day is not None]
    forecast = sum((part.forecast(_day_count(month)) for part in counted), Decimal(0))
    is_known = any(part.has_complete_day for part in counted)
    return BudgetMonth(budget, month, spent, min(days, default=0), forecast if is_known else None)


def _day_count(month: BillingMonth) -> int:
    return (month.next.first_day - month.first_day).days


def unmatched_filter_messages(
    connection: DuckDBPyConnection, budgets: Sequence[BudgetSettings]
) -> list[str]:
    """Return a line for each budget that no charge matches, or that names what no charge has.

    Each name of a filter counts, also if charges match another name of the same filter. A budget
    has at most one line: for its first such name, or else for all of its filters and its currency.
    The charges of all months count. Needs the relation `focus_named`, unless there are no budgets.
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
            lines.setdefault(
                budget.name, f"no charge of any month has the {names}; correct the filter"
            )
    for budget, matches in zip(budgets, row[len(filters) :], strict=True):
        if not matches:
            filters_text = " and ".join(
                filter(None, [budget.filter_text, f"currency = {budget.currency}"])
            )
            line = f"no charge of any month has {filters_text}; correct the filters or the currency"
            lines.setdefault(budget.name, line)
    return [f"budget {excerpt(name)}: {line}" for name, line in lines.items()]


def _names_of_charges(connection: DuckDBPyConnection, key: str) -> str:
    """Return the names that the charges with the highest costs have for a filter, as a message."""
    text = _texts(key)[-1]
    names = connection.execute(
        f"SELECT {text} AS name FROM ({CHARGES}) WHERE name <> '' GROUP BY name "
        f"ORDER BY sum(abs(EffectiveCost)) DESC LIMIT {_NAMES_SHOWN + 1}"
    ).fetchall()
    return f"the charges have {excerpts([name for (name,) in names], _NAMES_SHOWN) or 'none'}"


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
    name_list = Sql(", ").join(literal(name.lower()) for name in names)
    alternatives = Sql(" OR ").join(
        Sql(f"coalesce(nullif(lower({text}), ''), {literal(_NONE)}) IN ({name_list})")
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
