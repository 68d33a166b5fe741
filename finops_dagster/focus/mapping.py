"""A mapping to FOCUS: which charges a line item becomes, and the SQL of their columns.

A mapping is data: the columns that it reads, lookup tables, the kinds of line items with their
charges, and an expression for each FOCUS column. `FocusQuery` makes queries from it. All SQL of a
mapping is written in this code; no text of a bill or of the settings becomes a part of it.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted

# Columns that every charge has, beside those of the mapping.
ADDED_TYPES: Mapping[str, Sql] = {
    "x_export": Sql(SqlType.TEXT),
    "x_manifest_id": Sql(SqlType.TEXT),
    "x_billing_month": Sql("DATE"),
    "x_rule": Sql(SqlType.TEXT),
    "x_source_line_items": Sql("VARCHAR[]"),
}
_MAP_ENTRY = re.compile(r"(\w+)\[(.+)\]")


@dataclass(frozen=True)
class Input:
    """A column of the bill, under the name by which expressions read it.

    `spellings` are further names that it may have in the bill; `product[region]` is an entry of a
    map. The value is the first one that is not NULL, of the name itself and then of the spellings;
    NULL if the bill has none of these columns. If `build` is set, it is called with the bill's
    columns instead, and returns SQL for the cell and the columns that this reads.
    """

    name: str
    type: SqlType | Sql = SqlType.TEXT
    spellings: tuple[str, ...] = ()
    build: Callable[[Collection[str]], tuple[Sql, Collection[str]]] | None = None

    def sql(self, columns: Mapping[str, str]) -> tuple[Sql, Collection[str]]:
        """Return SQL for the cell, and the bill's columns that it reads.

        A map of which only an entry is read is not among them. `columns` has the types of the
        bill's columns, by name.
        """
        if self.build is not None:
            sql, read = self.build(columns)
            return Sql(f"CAST({sql} AS {self.type})"), read
        cells, read = list[Sql](), list[str]()
        for spelling in (self.name, *self.spellings):
            entry = _MAP_ENTRY.fullmatch(spelling)
            if spelling in columns:
                cells.append(quoted(spelling))
                read.append(spelling)
            elif entry and columns.get(entry[1], "").startswith("MAP"):
                cells.append(Sql(f"{quoted(entry[1])}[{literal(entry[2])}]"))
        if self.type is SqlType.TEXT:
            # Vendors write an absent text as an empty one.
            cells = [Sql(f"nullif(CAST({cell} AS VARCHAR), '')") for cell in cells]
        cells = cells or [Sql("NULL")]
        return Sql(f"CAST(coalesce({', '.join(cells)}) AS {self.type})"), read


@dataclass(frozen=True)
class Expression:
    """The SQL of a column of the charges, with the reason for it if that is not obvious.

    `type` is set only for columns that FOCUS does not define, which begin with `x_`.
    """

    sql: str
    why: str = ""
    type: Sql | None = None


@dataclass(frozen=True)
class Charge:
    """A charge that a line item becomes; `rule` is the value of its column `x_rule`.

    `columns` has the SQL of columns that differs from the mapping's. `when` is the SQL condition
    under which a line item becomes this charge; the first charge of a kind has none.
    """

    rule: str
    columns: Mapping[str, str] = field(default_factory=dict)
    when: str = "true"


@dataclass(frozen=True)
class Kind:
    """A kind of line items, for which the SQL condition `when` holds, and the charges of each.

    The costs of its charges may differ from the bill only if `moved` has the reason: the difference
    is then an entry of the month. Kinds with the same `cancels`, a name, move amounts among each
    other: the sum of their entries over the month is 0.
    """

    name: str
    when: str
    charges: tuple[Charge, ...] = ()
    moved: str = ""
    cancels: str = ""
    is_extra: bool = False
    """Whether the mapping's extra lines are of this kind, and none of the bill."""


@dataclass(frozen=True)
class Lookup:
    """A CSV file in `lookups/`, which is joined to the line items by its first columns, the keys.

    `keys` has the SQL of a line item's value for each key column. Expressions, and the keys of
    later lookups, read the column `category` of the lookup `service` as `service_category`;
    `service_is_known` is whether the table has the line item's key.
    """

    name: str
    file: str
    keys: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The path of the CSV file."""
        return Path(__file__).parent / "lookups" / self.file


@dataclass(frozen=True)
class FocusMapping:
    """How the line items of a format become charges.

    `columns` has the expression of each column of a charge, `derived` those that read other columns
    of the charge. A line item is of the first kind whose condition holds; the last kind has no
    condition. `headline` and `amortized` are SQL for the amounts of a line item: their sums must
    equal those of BilledCost and EffectiveCost with the entries. `steps` add columns to the line
    items after the lookups, for SQL that many expressions read; each reads those before it.
    `extra_lines` is a SELECT FROM bill of further line items, which are computed from several ones.
    `line_items` is SQL for the list of the vendor's ids of a line item; in it, `line_number` is the
    number of the row in the bill's file, and `dataset` the file's dataset.
    """

    name: str
    inputs: Sequence[Input]
    kinds: Sequence[Kind]
    columns: Mapping[str, Expression]
    derived: Mapping[str, Expression] = field(default_factory=dict)
    lookups: Sequence[Lookup] = ()
    steps: Sequence[Mapping[str, str]] = ()
    headline: str = "0"
    amortized: str = "0"
    currency: str = "NULL"
    line_items: str = "[CAST(line_number AS VARCHAR)]"
    extra_lines: str | None = None
    kept: frozenset[str] = frozenset()
    """The bill's columns that inputs read and that the charges also have, as `x_...`."""

    @cached_property
    def version(self) -> str:
        """The name with a digest of all that the charges depend on, also of the lookup tables.

        Charges with another version are derived again. Comments and docstrings are not part of it.
        """
        digest = hashlib.sha256()
        parts = (self.inputs, self.kinds, self.columns, self.derived, self.lookups, self.steps)
        for part in parts:
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(part)).encode())
        for text in (self.headline, self.amortized, self.currency, self.line_items):
            digest.update(text.encode())
        digest.update(repr((self.extra_lines, sorted(self.kept))).encode())
        builds = [column.build for column in self.inputs if column.build is not None]
        # What a function of a mapping does is not in its repr: a change of its module counts.
        modules = {getattr(build, "func", build).__module__ for build in builds}
        for module in sorted(modules):
            file = Path(str(sys.modules[module].__file__))
            digest.update(_code(file.read_text(encoding="utf-8")).encode())
        for lookup in self.lookups:
            digest.update(lookup.path.read_bytes())
        return f"{self.name} {digest.hexdigest()[:12]}"

    def kinds_of_rules(self) -> dict[str, Kind]:
        """Return {rule: its kind} for the rules of all charges."""
        return {charge.rule: kind for kind in self.kinds for charge in kind.charges}


def _code(source: str) -> str:
    """Return the lines of a Python module without docstrings, blank lines and lines of comment."""
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [
        node.body[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, with_docstring) and ast.get_docstring(node, clean=False) is not None
    ]
    left_out = {n for node in docstrings for n in range(node.lineno, (node.end_lineno or 0) + 1)}
    return "\n".join(
        line
        for number, line in enumerate(source.splitlines(), 1)
        if number not in left_out and line.strip() and not line.lstrip().startswith("#")
    )
