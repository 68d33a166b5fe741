"""Check charges against the rules of FOCUS, in DuckDB."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.focus.rules import (
    ChargeRule,
    CustomColumnsRule,
    PresenceRule,
    Rule,
    TypeRule,
    UniqueRule,
    rules_of,
    uncast_column,
)
from finops_dagster.focus.specification import FocusType, Specification

# DuckDB's names of the types that can hold FOCUS's. A map of texts stands for its JSON object.
_TYPES = {
    FocusType.TEXT: r"VARCHAR|ENUM\(.*\)",
    FocusType.DECIMAL: r"DECIMAL\(.*\)|DOUBLE|FLOAT",
    FocusType.TIME: r"TIMESTAMP.*|DATE",
    FocusType.JSON: r"VARCHAR|JSON|MAP\(VARCHAR, ([A-Z ]+|DECIMAL\(.*\))\)",
}
_LINE_ITEMS = "x_source_line_items"


@dataclass(frozen=True)
class BrokenRule:
    """A rule with the number of charges that break it: all, if it is on names or types of columns.

    `example` has the values of the rule's columns in one such charge, and its line items if the
    charges have their ids. For a UniqueRule, it has the key and two of its values; for a rule on
    names or types, the columns that break it with their types, or "missing".
    """

    rule: Rule
    rows: int
    example: Mapping[str, Any]


def find_broken_rules(
    connection: duckdb.DuckDBPyConnection,
    relation: Sql,
    specification: Specification | None = None,
) -> Sequence[BrokenRule]:
    """Return the rules of FOCUS that charges break, sorted by id; empty if they conform.

    `relation` is what follows FROM to read the charges. The rules are those of FOCUS 1.2 without a
    `specification`; disputed and recommended ones are among them. A column of another type breaks
    its rule `type`, and is cast to FOCUS's type for the others. A missing column breaks its rule
    `present`; no other rule that reads it is checked. Raises duckdb.Error.
    """
    specification = specification or Specification.load()
    described = connection.execute(f"DESCRIBE FROM {relation}").fetchall()
    types = {name: sql_type for name, sql_type, *_ in described}
    cells = _cells(types, specification)
    charges = _Charges(connection, _readable(relation, types, cells), types)
    rules = [rule for rule in rules_of(specification) if charges.has_columns_of(rule)]
    on_charges = [rule for rule in rules if isinstance(rule, ChargeRule)]
    row_counts = charges.row_counts([r for r in on_charges if not _is_kept_by_type(r, cells)])
    broken = (charges.broken(rule, row_counts) for rule in rules)
    return [rule for rule in broken if rule is not None]


@dataclass(frozen=True)
class _Charges:
    """A relation whose columns can be read, and the types that they were written in."""

    connection: duckdb.DuckDBPyConnection
    readable: Sql
    types: Mapping[str, str]

    def has_columns_of(self, rule: Rule) -> bool:
        """Return whether the rule can be checked."""
        on_names = isinstance(rule, PresenceRule | CustomColumnsRule)
        return on_names or self.types.keys() >= set(rule.columns)

    def row_counts(self, rules: Sequence[ChargeRule]) -> dict[str, int]:
        """Return how many charges there are, under "", and how many break each rule, by its id.

        It is one scan: one for each rule would take a hundred times as long.
        """
        counts = Sql(", ").join(
            [Sql("count(*)"), *(Sql(f"count_if({rule.breaks})") for rule in rules)]
        )
        row = self._first(Sql(f"SELECT {counts} FROM {self.readable}")) or ()
        return dict(zip(["", *(rule.id for rule in rules)], row, strict=True))

    def broken(self, rule: Rule, row_counts: Mapping[str, int]) -> BrokenRule | None:
        """Return the rule if charges break it, or None."""
        match rule:
            case ChargeRule() if row_counts.get(rule.id):
                return BrokenRule(rule, row_counts[rule.id], self._example(rule))
            case UniqueRule():
                return self._broken_unique(rule)
            case PresenceRule() | TypeRule() | CustomColumnsRule():
                example = self._columns_against(rule)
                return BrokenRule(rule, row_counts[""], example) if example else None
        return None

    def _columns_against(self, rule: PresenceRule | TypeRule | CustomColumnsRule) -> dict[str, str]:
        """Return the types of columns that break a rule on names and types, by name."""
        match rule:
            case PresenceRule(columns=(column,)):
                return {} if column in self.types else {column: "missing"}
            case TypeRule(columns=(column,)):
                is_right = re.fullmatch(_TYPES[rule.type], self.types[column])
                return {} if is_right else {column: self.types[column]}
            case CustomColumnsRule():
                return {
                    name: sql_type
                    for name, sql_type in self.types.items()
                    if name not in rule.columns and not name.startswith(rule.prefix)
                }
        return {}

    def _broken_unique(self, rule: UniqueRule) -> BrokenRule | None:
        key, value = quoted(rule.key_column), quoted(rule.value_column)
        row = self._first(
            Sql(
                f"SELECT {key}, min({value}), max({value}), sum(count(*)) OVER ()::BIGINT "
                f"FROM {self.readable} WHERE {key} IS NOT NULL GROUP BY {key} "
                f"HAVING min({value}) IS NULL OR min({value}) <> max({value}) "
                f"ORDER BY {key} LIMIT 1"
            )
        )
        if row is None:
            return None
        first_key, *values, rows = row
        example = {rule.key_column: first_key, rule.value_column: list(dict.fromkeys(values))}
        return BrokenRule(rule, rows, example)

    def _example(self, rule: ChargeRule) -> dict[str, Any]:
        """Return the rule's columns in one charge that breaks it, as they were written."""
        columns = [*rule.columns, *({_LINE_ITEMS} & self.types.keys())]
        values = Sql(", ").join(map(uncast_column, columns))
        row = self._first(Sql(f"SELECT {values} FROM {self.readable} WHERE {rule.breaks} LIMIT 1"))
        return dict(zip(columns, row or (), strict=True))

    def _first(self, query: Sql) -> tuple[Any, ...] | None:
        # A connection with rows that are left to fetch can do nothing else.
        rows: list[tuple[Any, ...]] = self.connection.execute(query).fetchall()
        return rows[0] if rows else None


def _cells(types: Mapping[str, str], specification: Specification) -> dict[str, Sql]:
    """Return the SQL that reads each of FOCUS's columns in its type, by name."""
    columns = {column.name: column.type for column in specification.columns}
    return {
        name: _cast(quoted(name), sql_type, columns[name])
        for name, sql_type in types.items()
        if name in columns
    }


def _is_kept_by_type(rule: ChargeRule, cells: Mapping[str, Sql]) -> bool:
    """Return whether no value can break the rule, since its column was written in FOCUS's type."""
    (name, *_) = rule.columns
    return uncast_column(name) in rule.breaks and cells[name] == quoted(name)


def _readable(relation: Sql, types: Mapping[str, str], cells: Mapping[str, Sql]) -> Sql:
    """Return the relation with FOCUS's columns in FOCUS's types, and each as it was written too.

    A value that cannot be read is NULL.
    """
    read = [Sql(f"{cell} AS {quoted(name)}") for name, cell in cells.items()]
    written = [Sql(f"{quoted(name)} AS {uncast_column(name)}") for name in types]
    return Sql(f"(SELECT {Sql(', ').join([*read, *written])} FROM {relation})")


def _cast(name: Sql, written_type: str, column_type: FocusType) -> Sql:
    """Return the SQL that reads a column as FOCUS's type; NULL where a value cannot be read."""
    is_read = re.fullmatch(_TYPES[column_type], written_type)
    if is_read and written_type not in ("VARCHAR", "JSON", "DOUBLE", "FLOAT"):
        return name
    text = Sql(f"{name}::VARCHAR")
    match column_type:
        case FocusType.TEXT:
            return name if written_type == "VARCHAR" else text
        case FocusType.DECIMAL | FocusType.TIME:
            return Sql(f"TRY_CAST({text} AS {column_type.sql_type})")
        case FocusType.JSON:
            # With the path `$.*`, json_type has the types of all values of an object.
            return Sql(
                f"CASE WHEN json_valid({text}) AND json_type({text}) = 'OBJECT' "
                f"AND NOT list_has_any(json_type({text}, '$.*'), ['OBJECT', 'ARRAY']) "
                f"THEN TRY_CAST({text}::JSON AS {column_type.sql_type}) END"
            )
