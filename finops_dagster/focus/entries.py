"""Reconcile charges with their bill: the totals of both, and the entries of what differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Self

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.errors import ReconciliationError, count_text
from finops_dagster.billing.money import Totals, decimal_text, exact_sum
from finops_dagster.focus.mapping import FocusMapping, Kind
from finops_dagster.focus.query import KindTotals

COST, EFFECTIVE_COST, CURRENCY = "BilledCost", "EffectiveCost", "BillingCurrency"
COSTS = (COST, EFFECTIVE_COST, "ListCost", "ContractedCost")
FAULT_ADVICE = (
    "the mapping has a fault: report it to the maintainers of finops_dagster, with this message"
)


@dataclass(frozen=True)
class Entry:
    """What FOCUS leaves out or moves of one kind of line items, in one currency.

    `rows` is the number of these line items. `billed` is their headline cost less the BilledCost of
    their charges, `effective` their amortized cost less the EffectiveCost. `why` is the mapping's
    reason.
    """

    kind: str
    why: str
    currency: str
    rows: int
    billed: Decimal
    effective: Decimal

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the entry of a dict that `to_row` returned."""
        amounts = {name: Decimal(row[name]) for name in ("billed", "effective")}
        return cls(**{**row, **amounts})

    def to_row(self) -> dict[str, Any]:
        """Return the fields as a row for the footer's JSON; amounts are text, to stay exact."""
        amounts = {name: decimal_text(getattr(self, name)) for name in ("billed", "effective")}
        return {**asdict(self), **amounts}


@dataclass(frozen=True)
class RuleTotals:
    """The charges of one rule in one currency; `sums` has the sum of each of COSTS by column."""

    rule: str
    currency: str
    rows: int
    sums: Mapping[str, Decimal]


def totals_by_rule(connection: DuckDBPyConnection, charges: Sql) -> list[RuleTotals]:
    """Return the number of charges and their costs, by rule and currency, in any order.

    `charges` is what follows FROM to read them. A charge without a currency has the currency "",
    and a cost that is NULL counts as 0. Raises duckdb.Error.
    """
    sums = Sql(", ".join(f"coalesce(sum({quoted(name)}), 0)" for name in COSTS))
    rows = connection.execute(
        f"SELECT x_rule, coalesce({quoted(CURRENCY)}, ''), count(*), {sums} "
        f"FROM {charges} GROUP BY ALL"
    ).fetchall()
    return [
        RuleTotals(rule, currency, count, dict(zip(COSTS, amounts, strict=True)))
        for rule, currency, count, *amounts in rows
    ]


def month_totals(rule_totals: Iterable[RuleTotals]) -> Totals:
    """Return the totals of a month's charges; BilledCost is their headline cost."""
    rows, sums, costs = 0, defaultdict[str, Decimal](Decimal), defaultdict[str, Decimal](Decimal)
    for totals in rule_totals:
        rows += totals.rows
        costs[totals.currency] = exact_sum([costs[totals.currency], totals.sums[COST]])
        for name, amount in totals.sums.items():
            sums[name] = exact_sum([sums[name], amount])
    return Totals(rows, sums[COST], sums, costs)


def reconcile_charges(
    mapping: FocusMapping, kind_totals: Sequence[KindTotals], rule_totals: Sequence[RuleTotals]
) -> list[Entry]:
    """Reconcile the charges of a month with its bill, and return the entries of the month.

    `kind_totals` are the totals of the bill's line items, `rule_totals` those of the charges. A
    kind that may move costs has an entry for each currency in which its charges have other costs
    than its line items, or for every currency if it becomes no charges. Entries are in the order of
    the mapping's kinds. Raises ReconciliationError if any other kind has other costs in its
    charges, if a line item has no charge, and if kinds that should cancel each other do not.
    """
    kinds = mapping.kinds_of_rules()
    charges: dict[tuple[str, str], list[RuleTotals]] = defaultdict(list)
    for totals in rule_totals:
        charges[kinds[totals.rule].name, totals.currency].append(totals)
    items = {(mapping.kinds[kind.kind].name, kind.currency): kind for kind in kind_totals}
    entries = []
    for kind in mapping.kinds:
        for currency in sorted({c for name, c in {*items, *charges} if name == kind.name}):
            none = KindTotals(0, currency, 0, Decimal(0), Decimal(0))
            key = (kind.name, currency)
            entry = _entry(kind, items.get(key, none), charges[key])
            if kind.moved and (not kind.charges or entry.billed or entry.effective):
                entries.append(entry)
    _require_cancelled(mapping, entries)
    return entries


def _entry(kind: Kind, items: KindTotals, charges: Sequence[RuleTotals]) -> Entry:
    """Return the difference between line items and their charges. Raises ReconciliationError."""
    first = kind.charges[0].rule if kind.charges else None
    rows = sum(charge.rows for charge in charges if charge.rule == first)
    if first and rows != items.rows and not kind.is_extra:
        raise ReconciliationError(
            f"{count_text(items.rows, 'line item')} of the kind {kind.name!r} became "
            f"{count_text(rows, 'charge')} of the rule {first}, instead of one each; {FAULT_ADVICE}"
        )
    billed, effective = (
        exact_sum([amount, *(-charge.sums[name] for charge in charges)])
        for name, amount in ((COST, items.headline), (EFFECTIVE_COST, items.amortized))
    )
    if not kind.moved and (billed or effective):
        raise ReconciliationError(
            f"the charges of the kind {kind.name!r} differ from the bill, which has "
            f"BilledCost {decimal_text(billed)} and EffectiveCost {decimal_text(effective)} "
            f"{items.currency} more; {FAULT_ADVICE}"
        )
    return Entry(kind.name, kind.moved, items.currency, items.rows, billed, effective)


def _require_cancelled(mapping: FocusMapping, entries: Iterable[Entry]) -> None:
    """Raise ReconciliationError if amounts that kinds move among each other do not sum to 0."""
    groups = {kind.name: kind.cancels for kind in mapping.kinds}
    moved: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if groups[entry.kind]:
            moved[groups[entry.kind], entry.currency].append(entry)
    for (group, currency), group_entries in moved.items():
        for name in ("billed", "effective"):
            difference = exact_sum(getattr(entry, name) for entry in group_entries)
            if difference:
                raise ReconciliationError(
                    f"the {name} costs that {group} moves do not cancel out: "
                    f"{decimal_text(difference)} {currency} is left; {FAULT_ADVICE}"
                )
