"""The rules of FOCUS as SQL, made from a specification; `conformance.py` checks them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.focus.specification import (
    ColumnsRule,
    FocusColumn,
    FocusType,
    Specification,
    ValueFormat,
)

# A unit is a size, a time or what is counted, in words (GB, Hours, API Requests): with a number
# before it, times a time (GB-Hours), or per time (Requests/Second, Requests/3 Months).
_WORDS = r"[A-Za-z][A-Za-z0-9]*(\s+[A-Za-z][A-Za-z0-9]*)*"
_TIME = "(Year|Month|Day|Hour|Minute|Second)"
UNIT = f"([0-9]+ )?{_WORDS}|{_WORDS}-{_TIME}s|{_WORDS}/{_TIME}|{_WORDS}/[0-9]+ {_TIME}s"

# What vendors and tools write instead of null.
_PLACEHOLDERS = ("NULL", "N/A", "Not Applicable")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of FOCUS with its id; `text` is the rule as a sentence.

    `columns` are those that it reads; if one is missing, the rule cannot be checked. `model_ids`
    are the rules of the FOCUS foundation's model that it covers. FOCUS says "should" of a rule that
    is not `required`. `disputed` is the reason why a correct charge may break it, or None.
    """

    id: str
    text: str
    columns: tuple[str, ...]
    model_ids: tuple[str, ...] = ()
    required: bool = True
    disputed: str | None = None


@dataclass(frozen=True, kw_only=True)
class PresenceRule(Rule):
    """There is a column of the name in `columns`, spelled as FOCUS spells it."""


@dataclass(frozen=True, kw_only=True)
class TypeRule(Rule):
    """A column has one of the types in DuckDB that can hold FOCUS's type."""

    type: FocusType


@dataclass(frozen=True, kw_only=True)
class CustomColumnsRule(Rule):
    """All columns that FOCUS does not have begin with a prefix.

    `columns` are FOCUS's. Unlike other rules, this one is checked even if some of them are missing.
    """

    prefix: str


@dataclass(frozen=True, kw_only=True)
class ChargeRule(Rule):
    """A rule on each charge: `breaks` is true of a charge that breaks it."""

    breaks: Sql


@dataclass(frozen=True, kw_only=True)
class UniqueRule(Rule):
    """A rule on all charges together: each key has exactly one value; NULLs are not counted."""

    key_column: str
    value_column: str


def rules_of(specification: Specification) -> tuple[Rule, ...]:
    """Return all rules of a specification, sorted by id.

    A rule that names a column which the specification does not have is left out.
    """
    names = tuple(column.name for column in specification.columns)
    custom = CustomColumnsRule(
        id="CustomColumns.prefix",
        text="Columns that FOCUS does not have begin with x_.",
        columns=names,
        prefix="x_",
    )
    rules: list[Rule] = [custom]
    for column in specification.columns:
        rules += _column_rules(column)
    rules += map(_columns_rule, specification.columns_rules)
    return tuple(
        replace(
            rule,
            required=rule.id not in specification.recommendations,
            model_ids=specification.model_rules.get(rule.id, ()),
        )
        for rule in sorted(rules, key=lambda rule: rule.id)
        if set(names).issuperset(rule.columns)
    )


def uncast_column(column: str) -> Sql:
    """Return the quoted name by which `ChargeRule.breaks` reads a column's values before the cast.

    `find_broken_rules` casts each column to FOCUS's type, which makes NULL of values that cannot be
    read. So it also has the uncast column, under this name.
    """
    return quoted(f"{column} as written")


def _column_rules(column: FocusColumn) -> Iterator[Rule]:
    name = column.name
    yield PresenceRule(id=f"{name}.present", text=f"There is a column {name}.", columns=(name,))
    yield TypeRule(
        id=f"{name}.type",
        text=f"{name} has the type {column.type}.",
        columns=(name,),
        type=column.type,
    )
    for kind, sentence, breaks in [*_value_rules(column), *_null_rules(column)]:
        yield ChargeRule(
            id=f"{name}.{kind}",
            text=f"{name} {sentence}.",
            columns=_columns_in(breaks),
            breaks=breaks,
        )


def _value_rules(column: FocusColumn) -> Iterator[tuple[str, str, Sql]]:
    """Yield the rules on a column's values: their kind, the end of a sentence, and `breaks`."""
    name = quoted(column.name)
    if column.type is FocusType.TEXT and not column.allowed_values:
        # The comparison, which only blank texts and few others pass, saves most of the time.
        blank = Sql(f"({name} < '!' AND trim({name}) = '')")
        placeholder = Sql(f"{name} IN {_in_parentheses(_PLACEHOLDERS)}")
        yield "format", "is not blank, and no word for null", Sql(f"{blank} OR {placeholder}")
    elif column.type is not FocusType.TEXT:
        unreadable = Sql(f"{name} IS NULL AND {uncast_column(column.name)} IS NOT NULL")
        yield "format", f"can be read as {column.type}", unreadable
    if column.allowed_values:
        yield "values", "has an allowed value", _not_in(name, column.allowed_values)
    if column.values_by_category:
        groups = column.values_by_category.items()
        categories = {value: category for category, values in groups for value in values}
        differs = Sql(f"{_map(categories)}[{name}] IS DISTINCT FROM ServiceCategory")
        breaks = Sql(f"ServiceCategory IS NOT NULL AND {name} IS NOT NULL AND {differs}")
        yield "category", "belongs to its ServiceCategory", breaks
    if column.keys:
        defined = _in_parentheses(column.keys)
        yield (
            "keys",
            "has only FOCUS's keys and keys that begin with x_",
            Sql(
                f"len(list_filter(map_keys({name}), lambda key: "
                f"key NOT IN {defined} AND NOT starts_with(key, 'x_'))) > 0"
            ),
        )
    if column.minimum is not None:
        yield "minimum", f"is at least {column.minimum}", Sql(f"{name} < {int(column.minimum)}")
    if column.format is not None:
        yield _format_rule(name, column.format)


def _format_rule(name: Sql, value_format: ValueFormat) -> tuple[str, str, Sql]:
    match value_format:
        case ValueFormat.UNIT:
            unit = literal(UNIT)
            return (
                "unit",
                "is a unit as FOCUS spells it",
                Sql(f"NOT regexp_full_match({name}, {unit})"),
            )
        case ValueFormat.CURRENCY:
            return (
                "currency",
                "is a code of three capital letters",
                Sql(f"NOT regexp_full_match({name}, '[A-Z]{{3}}')"),
            )
        case ValueFormat.NATIONAL_CURRENCY:
            return "currency", "is a code of ISO 4217", _not_in(name, _national_currencies())


def _null_rules(column: FocusColumn) -> Iterator[tuple[str, str, Sql]]:
    name = quoted(column.name)
    if not column.nullable:
        yield "not_null", "is not null", Sql(f"{name} IS NULL")
    if column.null_when is not None:
        condition = Sql(column.null_when)
        yield (
            "null",
            f"is null where {column.null_when}",
            Sql(f"{name} IS NOT NULL AND ({condition})"),
        )
    if column.filled_when is not None:
        condition = Sql(column.filled_when)
        yield (
            "filled",
            f"is not null where {column.filled_when}",
            Sql(f"{name} IS NULL AND ({condition})"),
        )


def _columns_rule(rule: ColumnsRule) -> Rule:
    if rule.holds is None:
        key, value = rule.key_column, rule.value_column
        assert key is not None and value is not None
        return UniqueRule(
            id=rule.id,
            text=rule.text,
            columns=(key, value),
            key_column=key,
            value_column=value,
        )
    return ChargeRule(
        id=rule.id,
        text=rule.text,
        columns=_columns_in(rule.holds),
        disputed=rule.disputed,
        breaks=Sql(f"NOT ({Sql(rule.holds)})"),
    )


def _columns_in(sql: str) -> tuple[str, ...]:
    """Return the columns that SQL names: its only words in both upper and lower case."""
    without_texts = re.sub(r"'[^']*'", "", sql)
    return tuple(dict.fromkeys(re.findall(r"\b[A-Z][A-Za-z]*[a-z][A-Za-z]*\b", without_texts)))


def _not_in(name: Sql, values: Iterable[str]) -> Sql:
    """Return the condition that a column has a value that is none of these.

    A function of one column is computed once for each text in the dictionary of a Parquet file, IN
    is not: it takes ten times as long for a hundred values.
    """
    return Sql(f"NOT map_contains({_map(dict.fromkeys(values, ''))}, {name})")


def _map(texts: Mapping[str, str]) -> Sql:
    entries = (f"{literal(key)}: {literal(text)}" for key, text in texts.items())
    return Sql(f"MAP {{{', '.join(entries)}}}")


def _in_parentheses(values: Iterable[str]) -> Sql:
    return Sql(f"({Sql(', ').join(map(literal, values))})")


@cache
def _national_currencies() -> tuple[str, ...]:
    """Return the codes of ISO 4217, and those that were withdrawn since 2020, for older bills."""
    path = Path(__file__).with_name("currencies.json")
    return tuple(json.loads(path.read_text(encoding="utf-8")))
