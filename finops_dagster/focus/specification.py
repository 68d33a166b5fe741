"""A version of FOCUS as data: its columns, read from `focus-<version>.toml`.

The schema of the table, the rules and the pages come from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Self

from finops_dagster.billing.columns import SqlType


class FocusType(StrEnum):
    """The types of values in FOCUS; its two formats of numbers and of times are part of them."""

    TEXT = "text"
    DECIMAL = "decimal"
    TIME = "time"
    JSON = "json"

    @property
    def sql_type(self) -> SqlType:
        """The type of such a column in the table of charges."""
        return {
            FocusType.TEXT: SqlType.TEXT,
            FocusType.DECIMAL: SqlType.MONEY,
            FocusType.TIME: SqlType.TIME,
            FocusType.JSON: SqlType.TEXT_MAP,
        }[self]


class Level(StrEnum):
    """Whether a dataset must have a column: always, under a condition, or as a recommendation.

    The tables of this project have the columns of all levels.
    """

    MANDATORY = "mandatory"
    CONDITIONAL = "conditional"
    RECOMMENDED = "recommended"


class ValueFormat(StrEnum):
    """The formats of texts that FOCUS has rules for; `focus-1.2.toml` says what they are."""

    NATIONAL_CURRENCY = "national_currency"
    CURRENCY = "currency"
    UNIT = "unit"


@dataclass(frozen=True)
class FocusColumn:
    """A column of FOCUS. `focus-1.2.toml` says what each field means.

    `allowed_values` is empty where every value is allowed. `values_by_category` has the allowed
    values of each ServiceCategory; it is None except for ServiceSubcategory. `keys` is empty where
    customers choose the keys.
    """

    name: str
    type: FocusType
    level: Level
    nullable: bool
    description: str
    when: str | None = None
    allowed_values: tuple[str, ...] = ()
    values_by_category: Mapping[str, tuple[str, ...]] | None = None
    keys: tuple[str, ...] = ()
    format: ValueFormat | None = None
    minimum: int | None = None
    null_when: str | None = None
    filled_when: str | None = None

    @classmethod
    def from_toml(cls, name: str, table: Mapping[str, Any]) -> Self:
        """Return the column that a TOML table `[columns.NAME]` describes.

        Raises KeyError, ValueError or TypeError for a missing, wrong or unknown field.
        """
        fields = dict(table)
        values = fields.pop("values", [])
        if isinstance(values, dict):
            fields["values_by_category"] = {key: tuple(group) for key, group in values.items()}
            values = [value for group in values.values() for value in group]
        value_format = fields.pop("format", None)
        return cls(
            name=name,
            type=FocusType(fields.pop("type")),
            level=Level(fields.pop("level")),
            allowed_values=tuple(values),
            keys=tuple(fields.pop("keys", [])),
            format=None if value_format is None else ValueFormat(value_format),
            **fields,
        )


@dataclass(frozen=True)
class ColumnsRule:
    """A rule over several columns; `text` is the rule as a sentence.

    It has either `holds`, SQL that is true or NULL of each charge that conforms; or `key_column`
    and `value_column`: each key has exactly one value, and NULLs are not counted. `disputed` is the
    reason why a correct charge may break the rule.
    """

    id: str
    text: str
    holds: str | None = None
    key_column: str | None = None
    value_column: str | None = None
    disputed: str | None = None


@dataclass(frozen=True)
class Specification:
    """A version of FOCUS. `columns` are sorted by name, as in FOCUS.

    `recommendations` are the ids of rules of which FOCUS says "should". `model_rules` has, by the
    id of a rule here, the ids of the rules in the FOCUS foundation's model that it checks.
    """

    version: str
    columns: tuple[FocusColumn, ...]
    columns_rules: tuple[ColumnsRule, ...]
    recommendations: frozenset[str]
    model_rules: Mapping[str, tuple[str, ...]]

    @classmethod
    @cache
    def load(cls, version: str = "1.2") -> Self:
        """Return the specification of a version that has a file `focus-<version>.toml` here.

        Raises FileNotFoundError for another version.
        """
        return cls.read(Path(__file__).with_name(f"focus-{version}.toml"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the specification in a TOML file.

        A file may name in `based_on` a version that `load` knows: it then has only the columns and
        rules that are new or changed, and in `removed_columns` the names of those that are gone;
        its `recommendations`, if any, replace the older ones. A file without `based_on` needs the
        file `<its name>-model.toml` beside it.
        """
        file = tomllib.loads(path.read_text(encoding="utf-8"))
        base = cls.load(file["based_on"]) if "based_on" in file else None
        columns = {column.name: column for column in base.columns} if base else {}
        columns |= {
            name: FocusColumn.from_toml(name, table) for name, table in file["columns"].items()
        }
        for name in file.get("removed_columns", []):
            del columns[name]
        rules = {rule.id: rule for rule in base.columns_rules} if base else {}
        rules |= {key: ColumnsRule(key, **table) for key, table in file.get("rules", {}).items()}
        return cls(
            file["version"],
            tuple(columns[name] for name in sorted(columns)),
            tuple(rules[key] for key in sorted(rules)),
            frozenset(file.get("recommendations", base.recommendations if base else ())),
            base.model_rules if base else _model_rules(path),
        )

    def column(self, name: str) -> FocusColumn:
        """Return the column with this name; KeyError if there is none in this spelling."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def _model_rules(specification: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the ids of the foundation's model by ours, from the file beside the specification."""
    path = specification.with_name(f"{specification.stem}-model.toml")
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    return {key: tuple(ids) for key, ids in file.items()}
