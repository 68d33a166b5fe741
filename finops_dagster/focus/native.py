"""Mappings of exports that are FOCUS already: their columns, repairs, and the record of repairs.

A column of FOCUS is read from the export, under its name or an older one. A column that the export
lacks is derived if possible, and NULL otherwise. A `Repair` changes what a vendor is known to
export wrongly. Each charge records its repairs: `x_source_changes` has their codes, and
`x_source_values` the values that the vendor wrote. Mistakes without a repair stay, and the checks
show them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from finops_dagster.billing.columns import Sql, SqlType, literal
from finops_dagster.focus.mapping import Charge, Expression, FocusMapping, Input, Kind, Lookup
from finops_dagster.focus.repairs import (
    DERIVED,
    REPAIRS,
    SPECIFICATION,
    Repair,
    is_null,
)

CHANGES, VALUES = "x_source_changes", "x_source_values"
Build = Callable[[Collection[str]], tuple[Sql, Collection[str]]]
_REFERENCE = re.compile(r"\{(\w+)\}")

# The names that columns had in FOCUS 0.5 and 1.0-preview; some exports have them to this day.
OLDER_NAMES: Mapping[str, tuple[str, ...]] = {
    "ConsumedQuantity": ("usagequantity",),
    "ConsumedUnit": ("usageunit",),
    "EffectiveCost": ("amortizedcost",),
    "InvoiceIssuerName": ("invoiceissuer",),
    "ProviderName": ("provider",),
    "PublisherName": ("publisher",),
}


@dataclass(frozen=True)
class NativeMapping:
    """The parts of a mapping of an export that is FOCUS already; see `focus_mapping`.

    `names` has further names that a column of FOCUS may have in the export, beside `OLDER_NAMES`.
    `derived` has the SQL of columns that the export may lack, and of the vendor's own columns that
    repairs change, with references as in `Repair`. Of the `repairs` of a column, the first one
    whose condition holds is applied. `builds` has, by column of FOCUS, the `build` of its input.
    """

    name: str
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: Sequence[Input] = ()
    derived: Mapping[str, Expression] = field(default_factory=dict)
    repairs: Sequence[Repair] = ()
    moves: Sequence[tuple[str, str, str]] = ()
    """Kinds whose costs repairs move: the name, the condition and why."""
    lookups: Sequence[Lookup] = ()
    kept: frozenset[str] = frozenset()
    builds: Mapping[str, Build] = field(default_factory=dict)
    line_items: str = "[CAST(line_number AS VARCHAR)]"

    def focus_mapping(self) -> FocusMapping:
        """Return the FocusMapping of these parts. The rules of its charges are names of kinds."""
        columns = {
            name: Expression(self.sql(f"{{{name}}}"), self._why(name), self._type(name))
            for name in self._names
        }
        columns[CHANGES] = Expression(self._changes(), "the codes of repairs", Sql("VARCHAR[]"))
        columns[VALUES] = Expression(
            self._values(), "what the vendor wrote in repaired columns", Sql(SqlType.TEXT_MAP)
        )
        moves = [
            Kind(name, self.sql(when), (Charge(name),), moved=why) for name, when, why in self.moves
        ]
        return FocusMapping(
            self.name,
            [*self._inputs(), *self.inputs],
            [*moves, Kind("as exported", "true", (Charge("as exported"),))],
            columns,
            lookups=self.lookups,
            steps=list(self._steps()),
            headline="BilledCost",
            amortized="EffectiveCost",
            currency="BillingCurrency",
            line_items=self.line_items,
            kept=self.kept,
        )

    def sql(self, text: str) -> str:
        """Return SQL with each reference, such as `{BilledCost}`, as the name of a column.

        If the column is derived or repaired, it is the one that the steps add; else the vendor's.
        """

        def column(match: re.Match[str]) -> str:
            return f"new_{match[1]}" if match[1] in self._texts else match[1]

        return _REFERENCE.sub(column, text)

    def _steps(self) -> Iterator[dict[str, str]]:
        """Yield the steps: the number of the repair of each column, and then its value.

        A column comes after those that it refers to.
        """
        levels: dict[int, list[str]] = {}
        for column in self._texts:
            levels.setdefault(self._level(column), []).append(column)
        for level in sorted(levels):
            numbers = {
                f"repair_{column}": self._number(repairs)
                for column in levels[level]
                if (repairs := self._repairs(column))
            }
            if numbers:
                yield numbers
            yield {f"new_{column}": self._value(column) for column in levels[level]}

    def _level(self, column: str) -> int:
        """Return the length of the chain of columns on which a column depends.

        Raises RecursionError for a circle.
        """
        references = {name for text in self._texts[column] for name in _REFERENCE.findall(text)}
        return max((self._level(name) + 1 for name in references & self._texts.keys()), default=0)

    def _number(self, repairs: Sequence[Repair]) -> str:
        cases = " ".join(f"WHEN {self.sql(r.when)} THEN {n}" for n, r in enumerate(repairs))
        return f"CASE {cases} END"

    def _value(self, column: str) -> str:
        unrepaired = self.sql(self._unrepaired(column))
        to_type = self._sql_type(column)
        cases = "".join(
            f" WHEN {number} THEN CAST({self.sql(repair.value or '')} AS {to_type})"
            for number, repair in enumerate(self._repairs(column))
        )
        return f"CASE repair_{column}{cases} ELSE {unrepaired} END" if cases else unrepaired

    def _unrepaired(self, column: str) -> str:
        """Return SQL for the value without repairs: NULL where FOCUS allows none."""
        expression = self._derived.get(column)
        value = expression.sql if expression else column
        condition = is_null(SPECIFICATION.column(column)) if column[:2] != "x_" else None
        return f"CASE WHEN {condition} THEN NULL ELSE {value} END" if condition else value

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        """The SQL of each column that is derived or repaired."""
        texts = {name: [self._unrepaired(name)] for name in self._derived}
        for column in self._by_column:
            for repair in self._repairs(column):
                texts.setdefault(column, []).extend((repair.when, repair.value or ""))
        return texts

    def _repairs(self, column: str) -> list[Repair]:
        """Return the repairs of a column that change it, of which the first one counts."""
        return [repair for repair in self._by_column.get(column, ()) if repair.value is not None]

    @cached_property
    def _derived(self) -> Mapping[str, Expression]:
        return {**DERIVED, **self.derived}

    @cached_property
    def _names(self) -> list[str]:
        added = [name for name in self.derived if name.startswith("x_")]
        return list(dict.fromkeys([*(c.name for c in SPECIFICATION.columns), *added]))

    @cached_property
    def _by_column(self) -> dict[str, list[Repair]]:
        grouped: dict[str, list[Repair]] = {}
        for repair in [*self.repairs, *REPAIRS]:
            grouped.setdefault(repair.column, []).append(repair)
        return grouped

    def _inputs(self) -> Iterator[Input]:
        for column in SPECIFICATION.columns:
            name = column.name
            spellings = (name.lower(), *self.names.get(name, ()), *OLDER_NAMES.get(name, ()))
            yield Input(name, column.type.sql_type, spellings, self.builds.get(name))

    def _why(self, column: str) -> str:
        expression = self._derived.get(column)
        reasons = [expression.why] if expression and expression.why else []
        repairs = self._by_column.get(column, ())
        return "; ".join([*reasons, *(f"{repair.code}: {repair.why}" for repair in repairs)])

    def _type(self, column: str) -> Sql | None:
        expression = self._derived.get(column)
        return expression.type if expression else None

    def _changes(self) -> str:
        """Return SQL for the list of the codes of a charge's repairs."""
        cases = list[str]()
        for column, repairs in self._by_column.items():
            codes = " ".join(
                f"WHEN {number} THEN {literal(repair.code)}"
                for number, repair in enumerate(self._repairs(column))
            )
            if codes:
                cases.append(f"CASE repair_{column} {codes} END")
            cases += (
                f"CASE WHEN {self.sql(repair.when)} THEN {literal(repair.code)} END"
                for repair in repairs
                if repair.value is None
            )
        return f"list_sort(list_distinct([{', '.join(cases)}]))"

    def _values(self) -> str:
        """Return SQL for the map of the vendor's values, by column."""
        entries = ", ".join(
            f"CASE WHEN repair_{column} IS NOT NULL "
            f"THEN {{'key': {literal(column)}, 'value': {self._text(column)}}} END"
            for column in self._by_column
            if self._repairs(column)
        )
        return f"map_from_entries(list_filter([{entries}], lambda entry: entry IS NOT NULL))"

    def _text(self, column: str) -> str:
        """Return SQL for the vendor's value as text, a number without the zeros at its end."""
        text = f"CAST({column} AS VARCHAR)"
        is_money = self._sql_type(column) == Sql(SqlType.MONEY)
        return f"rtrim(rtrim({text}, '0'), '.')" if is_money else text

    def _sql_type(self, column: str) -> Sql:
        return self._type(column) or Sql(SPECIFICATION.column(column).type.sql_type)
