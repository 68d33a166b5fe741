"""The SQL of a mapping: from a month's line items to its charges, and the totals of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property

import duckdb

from finops_dagster.billing.columns import (
    ADDED_COLUMNS,
    Sql,
    SqlType,
    file_literal,
    literal,
    quoted,
)
from finops_dagster.focus.mapping import ADDED_TYPES, FocusMapping, Kind, Lookup
from finops_dagster.focus.specification import Specification

_ROW_NUMBER = "file_row_number"


@dataclass(frozen=True)
class KindTotals:
    """The line items of one kind in one currency; `kind` is its number in the mapping."""

    kind: int
    currency: str
    rows: int
    headline: Decimal
    amortized: Decimal


@dataclass(frozen=True)
class FocusQuery:
    """The queries of one month: `sources` are what follows FROM for its files, by dataset.

    A month of one file has the dataset "". Each relation has the rows' numbers in
    `file_row_number`. `constants` are the values of the columns that all charges of the month
    share, such as `x_export`. Call `prepare` before a query runs.
    """

    connection: duckdb.DuckDBPyConnection
    mapping: FocusMapping
    specification: Specification
    sources: Mapping[str, Sql]
    constants: Mapping[str, Sql] = field(default_factory=dict)

    def prepare(self) -> None:
        """Create the tables of the lookups, and the temporary views that the queries read.

        `bill` has the inputs, and every other column of the bill as `x_...`. `bill_lines` has what
        the lookups found too, and in `kind` the number of each line item's kind; `lines` has the
        extra lines as well.
        """
        for lookup in self.mapping.lookups:
            self._create_table(lookup)
        bill = Sql(" UNION ALL BY NAME ".join(self._bill(dataset) for dataset in self.sources))
        self._create_view("bill", bill)
        self._create_view("bill_lines", self._with_kinds(Sql("FROM bill")))
        lines = Sql("FROM bill_lines")
        if self.mapping.extra_lines is not None:
            # Columns that the extra lines lack are NULL in them. They are in a table because their
            # sums need the whole bill.
            extra = Sql(f"FROM bill WHERE false UNION ALL BY NAME ({self.mapping.extra_lines})")
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE extra_bill AS {extra}")
            extra = self._with_kinds(Sql("FROM extra_bill"))
            lines = Sql(f"FROM bill_lines UNION ALL BY NAME ({extra})")
        self._create_view("lines", lines)

    def charges(self) -> Sql:
        """Return the SELECT of the month's charges: the columns of FOCUS first, in its order."""
        mapping = self.mapping
        most = max(len(kind.charges) for kind in mapping.kinds)
        parts = Sql(" UNION ALL BY NAME ".join(map(self._numbered_charges, range(most))))
        derived = {
            name: self._typed(name, Sql(expression.sql))
            for name, expression in mapping.derived.items()
        }
        given = [*mapping.columns, *derived, *ADDED_TYPES]
        defined = [c.name for c in self.specification.columns if c.name in given]
        added = [name for name in given if name not in defined]
        columns = ", ".join(
            f"{derived.get(name, quoted(name))} AS {quoted(name)}"
            for name in [*defined, *added, *self._vendor_columns]
        )
        return Sql(f"SELECT {columns} FROM ({parts})")

    def totals_by_kind(self) -> list[KindTotals]:
        """Return the number of the bill's line items and their costs, by kind and currency."""
        mapping = self.mapping
        currency, headline, amortized = map(
            Sql, (mapping.currency, mapping.headline, mapping.amortized)
        )
        rows = self.connection.execute(
            f"SELECT kind, coalesce({currency}, ''), count(*), "
            f"coalesce(sum(CAST({headline} AS {SqlType.MONEY})), 0), "
            f"coalesce(sum(CAST({amortized} AS {SqlType.MONEY})), 0) "
            "FROM bill_lines GROUP BY ALL"
        ).fetchall()
        return [KindTotals(*row) for row in rows]

    def unknown_keys(self) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """Yield each lookup's name with the keys that it lacks, and the number of line items."""
        for lookup in self.mapping.lookups:
            keys, first = Sql(", ".join(lookup.keys)), Sql(lookup.keys[0])
            yield (
                lookup.name,
                self.connection.execute(
                    f"SELECT concat_ws(' ', {keys}), count(*) FROM bill_lines "
                    f"WHERE NOT {_is_known(lookup)} AND {first} IS NOT NULL "
                    "GROUP BY 1 ORDER BY 2 DESC, 1"
                ).fetchall(),
            )

    def _create_table(self, lookup: Lookup) -> None:
        file = Sql(f"read_csv({file_literal(lookup.path)}, header = true, all_varchar = true)")
        names = [name for name, *_ in self.connection.execute(f"DESCRIBE FROM {file}").fetchall()]
        columns = Sql(", ".join(f"{quoted(n)} AS {quoted(f'{lookup.name}_{n}')}" for n in names))
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_table(lookup)} AS SELECT {columns} FROM {file}"
        )

    def _create_view(self, name: str, query: Sql) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS {query}")

    def _bill(self, dataset: str) -> Sql:
        """Return the SELECT of a dataset's inputs, and of its other columns as `x_...`."""
        relation = self.sources[dataset]
        columns = {
            name: sql_type
            for name, sql_type, *_ in self.connection.execute(
                f"DESCRIBE FROM {relation}"
            ).fetchall()
            if name not in (*ADDED_COLUMNS, _ROW_NUMBER)
        }
        cells = {column.name: column.sql(columns) for column in self.mapping.inputs}
        read = {name for _, names in cells.values() for name in names} - self.mapping.kept
        passed_on = {name: vendor_name(name) for name in columns if name not in read}
        selected = [
            *(f"{cell} AS {quoted(name)}" for name, (cell, _) in cells.items()),
            *(f"{quoted(name)} AS {quoted(new)}" for name, new in passed_on.items()),
            f"{literal(dataset)} AS dataset",
            f"{_ROW_NUMBER} + 1 AS line_number",
        ]
        return Sql(f"SELECT {', '.join(selected)} FROM {relation}")

    def _with_kinds(self, lines: Sql) -> Sql:
        """Return the SELECT of line items with what lookups and steps add, and with their kinds."""
        for lookup in self.mapping.lookups:
            table = _table(lookup)
            names = [name for name, *_ in self.connection.execute(f"DESCRIBE {table}").fetchall()]
            found = f"{table}.*, {table}.{quoted(names[0])} IS NOT NULL AS {_is_known(lookup)}"
            on = (
                f"{table}.{quoted(name)} = ({key})"
                for name, key in zip(names, lookup.keys, strict=False)
            )
            lines = Sql(
                f"SELECT line.*, {found} FROM ({lines}) line "
                f"LEFT JOIN {table} ON {' AND '.join(on)}"
            )
        for step in self.mapping.steps:
            added = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in step.items())
            lines = Sql(f"SELECT *, {added} FROM ({lines})")
        *conditions, _ = (
            f"WHEN {kind.when} THEN {number}" for number, kind in enumerate(self.mapping.kinds)
        )
        last = len(self.mapping.kinds) - 1
        kind = f"CASE {' '.join(conditions)} ELSE {last} END" if conditions else f"{last}"
        return Sql(f"SELECT *, {kind} AS kind FROM ({lines})")

    def _numbered_charges(self, number: int) -> Sql:
        """Return the SELECT of each line item's first charge (0), or of its second (1)."""
        kinds = {n: kind for n, kind in enumerate(self.mapping.kinds) if len(kind.charges) > number}
        rules = {n: literal(kind.charges[number].rule) for n, kind in kinds.items()}
        cells = {
            name: self._typed(name, self._by_kind(name, Sql(expression.sql), kinds, number))
            for name, expression in self.mapping.columns.items()
        }
        cells |= {
            name: Sql(f"CAST({sql} AS {ADDED_TYPES[name]})")
            for name, sql in {
                **self.constants,
                "x_rule": _case(rules, None),
                "x_source_line_items": Sql(self.mapping.line_items),
            }.items()
        }
        selected = ", ".join(
            [
                *(f"{cell} AS {quoted(name)}" for name, cell in cells.items()),
                *map(quoted, self._vendor_columns),
            ]
        )
        conditions = {n: Sql(kind.charges[number].when) for n, kind in kinds.items()}
        numbers = ", ".join(map(str, kinds))
        return Sql(
            f"SELECT {selected} FROM lines "
            f"WHERE kind IN ({numbers}) AND ({_case(conditions, None)})"
        )

    def _by_kind(self, name: str, sql: Sql, kinds: Mapping[int, Kind], number: int) -> Sql:
        """Return the SQL of a column, whose expression may be another for some kinds."""
        others = {
            n: Sql(kind.charges[number].columns[name])
            for n, kind in kinds.items()
            if name in kind.charges[number].columns
        }
        return _case(others, None if len(others) == len(kinds) else sql)

    def _typed(self, name: str, sql: Sql) -> Sql:
        expression = self.mapping.columns.get(name) or self.mapping.derived[name]
        column_type = expression.type or Sql(self.specification.column(name).type.sql_type)
        return Sql(f"CAST({sql} AS {column_type})")

    @cached_property
    def _vendor_columns(self) -> list[str]:
        """The columns of the bill that pass through, in the bill's order."""
        own = {name.lower() for name in (*self.mapping.columns, *self.mapping.derived)}
        rows = self.connection.execute("DESCRIBE lines").fetchall()
        inputs = {column.name for column in self.mapping.inputs}
        return [
            name
            for name, *_ in rows
            if name.startswith("x_") and name.lower() not in own and name not in inputs
        ]


def vendor_name(column: str) -> str:
    """Return the name that a vendor's own column has among the charges."""
    return column if column.startswith("x_") else f"x_{column}"


def _case(cells: Mapping[int, Sql], otherwise: Sql | None) -> Sql:
    """Return the SQL that picks a cell by `kind`; all kinds have one if `otherwise` is None."""
    if len(set(cells.values())) <= 1 and otherwise is None:
        return next(iter(cells.values()))
    if not cells and otherwise is not None:
        return otherwise
    cases = " ".join(f"WHEN {number} THEN {cell}" for number, cell in cells.items())
    ending = "" if otherwise is None else f" ELSE {otherwise}"
    return Sql(f"CASE kind {cases}{ending} END")


def _table(lookup: Lookup) -> Sql:
    return quoted(f"lookup_{lookup.name}")


def _is_known(lookup: Lookup) -> Sql:
    return quoted(f"{lookup.name}_is_known")
