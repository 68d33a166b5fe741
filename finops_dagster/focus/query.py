"""The SQL of a mapping: from a month's line items to its charges, and the totals of both."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from finops_dagster.focus.enums import enum_type, literal_texts
from finops_dagster.focus.mapping import ADDED_TYPES, Charge, FocusMapping, Input, Lookup
from finops_dagster.focus.specification import Specification

_ROW_NUMBER = "file_row_number"
# DuckDB writes all texts of an ENUM into the dictionary of each row group, used or not.
_MOST_ENUM_TEXTS = 4096


@dataclass(frozen=True)
class KindTotals:
    """The totals of the line items of one kind in one currency.

    `kind` is the position of the kind in the mapping's `kinds`, from 0.
    """

    kind: int
    currency: str
    rows: int
    headline: Decimal
    amortized: Decimal


@dataclass(frozen=True)
class FocusQuery:
    """The queries that derive the charges of one month. Call `prepare` before any other method.

    `sources` has what follows FROM to read the month's bill, by dataset; a single bill has the
    dataset "". Each has the numbers of its rows in `file_row_number`. `constants` has the SQL of
    the columns with the same value in all charges of the month, such as `x_export`. `texts` has, by
    dataset and column, all texts of columns that have only few, as `lake.distinct_values_in_footer`
    returns them.
    """

    connection: duckdb.DuckDBPyConnection
    mapping: FocusMapping
    specification: Specification
    sources: Mapping[str, Sql]
    constants: Mapping[str, Sql] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Collection[str]]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Create what the queries read: temporary tables of lookups and inputs, and a view `bill`.

        `bill` has the line items with the mapping's inputs, and as `x_...` the bill's columns that
        no input reads or that are in `kept`. An input with `Input.build` is in it only if the extra
        lines read it. The mapping's extra lines are put into the table `extra_lines`.
        """
        for lookup in self.mapping.lookups:
            self._create_table(lookup)
        for dataset, columns in self._bill_columns.items():
            for column in self.mapping.inputs:
                cell, names = column.sql(columns)
                if column.build is not None and names:
                    self._create_combinations(column, dataset, cell, names)
        self._create_view("bill", self._bill([self.mapping.extra_lines or ""]))
        if self.mapping.extra_lines is not None:
            # They are in a table because their sums need the whole bill. Columns that they lack are
            # NULL in them.
            extra = Sql(self.mapping.extra_lines)
            extra = Sql(f"FROM bill WHERE false UNION ALL BY NAME ({extra})")
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE extra_lines AS {extra}")

    def charges_sql(self, names: Collection[str] | None = None) -> Sql:
        """Return the SELECT of the month's charges: the columns of FOCUS first, in its order.

        With `names`, only those of these columns that the charges have, and `x_rule`; columns of
        the vendor are then left out. Nothing is executed.
        """
        mapping = self.mapping
        mapped = [*mapping.columns, *mapping.derived, *ADDED_TYPES]
        if names is not None:
            mapped = [name for name in mapped if name in (*names, "x_rule")]
        vendors = self._vendor_columns if names is None else []
        derived = {
            name: self._typed(name, Sql(mapping.derived[name].sql))
            for name in mapped
            if name in mapping.derived
        }
        lines = self._lines_by_charge(mapped, vendors)
        defined = [c.name for c in self.specification.columns if c.name in mapped]
        added = [name for name in mapped if name not in defined]
        columns = ", ".join(
            f"{derived.get(name, quoted(name))} AS {quoted(name)}"
            for name in [*defined, *added, *vendors]
        )
        return Sql(f"SELECT {columns} FROM ({lines})")

    def totals_by_kind(self) -> list[KindTotals]:
        """Return the number of the bill's line items and their costs, by kind and currency.

        In any order; a kind without line items is left out. The mapping's extra lines do not count.
        Line items without a currency have the currency "".
        """
        mapping = self.mapping
        currency, headline, amortized = map(
            Sql, (mapping.currency, mapping.headline, mapping.amortized)
        )
        lines = self._with_kinds([currency, headline, amortized], with_extra=False)
        rows = self.connection.execute(
            f"SELECT kind, coalesce({currency}, ''), count(*), "
            f"coalesce(sum(CAST({headline} AS {SqlType.MONEY})), 0), "
            f"coalesce(sum(CAST({amortized} AS {SqlType.MONEY})), 0) "
            f"FROM ({lines}) GROUP BY ALL"
        ).fetchall()
        return [KindTotals(*row) for row in rows]

    def unknown_keys(self) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """Yield each lookup's name, and pairs of a key that it lacks and its number of line items.

        The key with the most line items is first. The list is empty if the lookup has all keys. A
        key of several cells is one text with spaces; line items whose first cell is NULL have none.
        """
        for lookup in self.mapping.lookups:
            table, names = _table(lookup), self._lookup_columns[lookup.name]
            cells = Sql(", ".join(f"{key} AS key{n}" for n, key in enumerate(lookup.keys)))
            keys = [Sql(f"key{n}") for n in range(len(lookup.keys))]
            on = Sql(" AND ".join(f"{quoted(names[n])} = {key}" for n, key in enumerate(keys)))
            lines = Sql(f"({self._lines(lookup.keys, with_extra=False)})")
            # Line items repeat the cells of which a key is made: each key is made once.
            identifiers = _identifiers(lookup.keys)
            read = Sql(
                ", ".join(quoted(name) for name in self._columns(lines) if name in identifiers)
            )
            lines = Sql(f"SELECT {read}, count(*) AS line_items FROM {lines} GROUP BY ALL")
            yield (
                lookup.name,
                self.connection.execute(
                    f"SELECT concat_ws(' ', {', '.join(keys)}), line_items FROM "
                    f"(SELECT {cells}, sum(line_items) AS line_items FROM ({lines}) GROUP BY ALL) "
                    f"ANTI JOIN {table} ON {on} WHERE key0 IS NOT NULL ORDER BY 2 DESC, 1"
                ).fetchall(),
            )

    def _columns(self, relation: Sql) -> dict[str, str]:
        """Return the types of a relation's columns by name."""
        rows = self.connection.execute(f"DESCRIBE FROM {relation}").fetchall()
        return {name: sql_type for name, sql_type, *_ in rows}

    def _create_table(self, lookup: Lookup) -> None:
        file = Sql(f"read_csv({file_literal(lookup.path)}, header = true, all_varchar = true)")
        names = self._columns(file)
        columns = Sql(", ".join(f"{quoted(n)} AS {quoted(f'{lookup.name}_{n}')}" for n in names))
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_table(lookup)} AS SELECT {columns} FROM {file}"
        )

    def _create_view(self, name: str, query: Sql) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS {query}")

    def _bill(self, used: Iterable[str]) -> Sql:
        """Return the SELECT of the inputs of all datasets; built ones only if `used` names them."""
        datasets = (self._dataset(name, _identifiers(used)) for name in self.sources)
        return Sql(" UNION ALL BY NAME ".join(datasets))

    def _dataset(self, dataset: str, identifiers: Collection[str]) -> Sql:
        """Return the SELECT of a dataset's inputs, and of its other columns as `x_...`."""
        columns = self._bill_columns[dataset]
        cells, read, joins = list[str](), set[str](), list[Sql]()
        for column in self.mapping.inputs:
            cell, names = column.sql(columns)
            read.update(names)
            if column.build is not None and names:
                if column.name not in identifiers:
                    continue
                joins.append(_combinations_join(column, dataset, names))
                cell = Sql(f"{_combinations_table(column, dataset)}.cell")
            cells.append(f"{cell} AS {quoted(column.name)}")
        passed_on = (name for name in columns if name not in read - self.mapping.kept)
        selected = [
            *cells,
            *(self._vendor_cell(dataset, name) for name in passed_on),
            f"{literal(dataset)} AS dataset",
            f"{_ROW_NUMBER} + 1 AS line_number",
        ]
        source = f"{self.sources[dataset]} bill {' '.join(joins)}"
        return Sql(f"SELECT {', '.join(selected)} FROM {source}")

    def _vendor_cell(self, dataset: str, name: str) -> Sql:
        """Return a column that is passed on, as an ENUM if its texts are known."""
        cell, texts = Sql(f"bill.{quoted(name)}"), self.texts.get(dataset, {}).get(name)
        if texts:
            cell = Sql(f"CAST({cell} AS {enum_type(texts)})")
        return Sql(f"{cell} AS {quoted(x_column_name(name))}")

    def _create_combinations(
        self, column: Input, dataset: str, cell: Sql, names: Collection[str]
    ) -> None:
        """Create a table of a built input's values.

        Such a value takes long to build, and line items repeat the cells of which it is built: each
        combination of them is built once.
        """
        table = _combinations_table(column, dataset)
        read = Sql(", ".join(map(quoted, names)))
        keys = Sql(", ".join(f"{quoted(n)} AS {_key(number)}" for number, n in enumerate(names)))
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {keys}, {cell} AS cell FROM "
            f"(SELECT DISTINCT {read} FROM {self.sources[dataset]})"
        )
        if column.type is SqlType.TEXT_MAP:
            self._use_enums(column, dataset)

    def _use_enums(self, column: Input, dataset: str) -> None:
        """Give the maps of combinations texts of ENUM types, if they have any, and few.

        DuckDB writes them to Parquet in a third of the time, where they are texts again.
        """
        table, types = _combinations_table(column, dataset), list[Sql]()
        for part in ("keys", "values"):
            texts = f"SELECT DISTINCT unnest(map_{part}(cell)) AS text FROM {table}"
            texts = f"SELECT text FROM ({texts}) WHERE text IS NOT NULL"
            ((count,),) = self.connection.execute(f"SELECT count(*) FROM ({texts})").fetchall()
            if not 0 < count <= _MOST_ENUM_TEXTS:  # an ENUM of no texts has no name for its type
                return
            types.append(quoted(f"{column.name} {part} of {dataset}"))
            self.connection.execute(f"CREATE OR REPLACE TYPE {types[-1]} AS ENUM ({texts})")
        self.connection.execute(f"ALTER TABLE {table} ALTER cell TYPE MAP({', '.join(types)})")

    def _lines(self, used: Iterable[str], *, with_extra: bool = True) -> Sql:
        """Return the SELECT of the line items with what lookups and steps add.

        Only those lookups, steps and built inputs are part of it that `used` names, which is SQL:
        they cost most of the time.
        """
        identifiers, added, joins = _identifiers(used), list[Sql](), list[tuple[Sql, Sql]]()
        for step in reversed(self.mapping.steps):
            cells = {name: sql for name, sql in step.items() if name in identifiers}
            identifiers |= _identifiers(cells.values())
            added.insert(0, Sql("".join(f", {sql} AS {quoted(n)}" for n, sql in cells.items())))
        for lookup in reversed(self.mapping.lookups):
            names = self._lookup_columns[lookup.name]
            if not identifiers.isdisjoint([*names, f"{lookup.name}_is_known"]):
                identifiers |= _identifiers(lookup.keys)
                joins.insert(0, _join(lookup, names))
        lines = self._bill(identifiers)
        if with_extra and self.mapping.extra_lines is not None:
            lines = Sql(f"{lines} UNION ALL BY NAME FROM extra_lines")
        for columns, join in joins:
            lines = Sql(f"SELECT line.*, {columns} FROM ({lines}) line {join}")
        for cells_of_step in filter(None, added):
            lines = Sql(f"SELECT *{cells_of_step} FROM ({lines})")
        return lines

    def _with_kinds(self, used: Iterable[str], *, with_extra: bool = True) -> Sql:
        """Return the SELECT of the line items with their kinds; `used` as for `_lines`."""
        *conditions, _ = (
            f"WHEN {kind.when} THEN {number}" for number, kind in enumerate(self.mapping.kinds)
        )
        last = len(self.mapping.kinds) - 1
        kind = Sql(f"CASE {' '.join(conditions)} ELSE {last} END" if conditions else f"{last}")
        lines = self._lines([*used, kind], with_extra=with_extra)
        return Sql(f"SELECT *, {kind} AS kind FROM ({lines})")

    def _lines_by_charge(self, names: Sequence[str], vendors: Sequence[str]) -> Sql:
        """Return the SELECT of the line items, once for each charge that they become.

        `names` are the columns that the mapping gives, `vendors` those of the bill.
        """
        mapping = self.mapping
        derived_of = _identifiers(
            mapping.derived[name].sql for name in names if name in mapping.derived
        )
        cells = {
            name: self._typed(name, self._by_charge(name, Sql(expression.sql)))
            for name, expression in mapping.columns.items()
            if name in names or name in derived_of
        }
        added = {
            **self.constants,
            "x_rule": _case({n: literal(c.rule) for n, c in enumerate(self._charges)}, None),
            "x_source_line_items": Sql(mapping.line_items),
        }
        cells |= {
            name: _cast(sql, ADDED_TYPES[name], literal_texts(sql))
            for name, sql in added.items()
            if name in names
        }
        selected = [*(f"{cell} AS {quoted(name)}" for name, cell in cells.items())]
        selected += map(quoted, vendors)
        conditions = {n: Sql(c.when) for n, c in enumerate(self._charges) if c.when != "true"}
        condition = _case(conditions, Sql("true"))
        lines = self._with_kinds([*cells.values(), condition])
        kinds = enumerate(kind for kind, of in enumerate(mapping.kinds) for _ in of.charges)
        numbers = ", ".join(f"({kind}, {number})" for number, kind in kinds)
        return Sql(
            f"SELECT {', '.join(selected)} FROM ({lines}) "
            f"JOIN (VALUES {numbers}) AS charges(kind, charge) USING (kind) WHERE {condition}"
        )

    def _by_charge(self, name: str, sql: Sql) -> Sql:
        """Return the SQL of a column, for which some charges have an expression of their own."""
        overrides = {
            number: Sql(charge.columns[name])
            for number, charge in enumerate(self._charges)
            if name in charge.columns
        }
        return _case(overrides, None if len(overrides) == len(self._charges) else sql)

    @cached_property
    def _charges(self) -> list[Charge]:
        """The charges of all kinds; `charge` is their number."""
        return [charge for kind in self.mapping.kinds for charge in kind.charges]

    def _typed(self, name: str, sql: Sql) -> Sql:
        expression = self.mapping.columns.get(name) or self.mapping.derived[name]
        column_type = expression.type or Sql(self.specification.column(name).type.sql_type)
        if expression.sql in self._map_inputs:
            return sql  # its texts may be of ENUM types
        return _cast(sql, column_type, self._literal_texts(name))

    def _literal_texts(self, name: str) -> set[str] | None:
        """Return all texts of a column; None if they are not known, or if another one reads it."""
        if name in self._read_by_derived:
            return None
        expression = self.mapping.columns.get(name) or self.mapping.derived[name]
        overrides = (charge.columns[name] for charge in self._charges if name in charge.columns)
        texts = set[str]()
        for sql in (expression.sql, *overrides):
            sql_texts = literal_texts(sql)
            if sql_texts is None:
                return None
            texts |= sql_texts
        return texts

    @cached_property
    def _read_by_derived(self) -> set[str]:
        """The identifiers in the SQL of derived columns: what these read must not be an ENUM."""
        return _identifiers(expression.sql for expression in self.mapping.derived.values())

    @cached_property
    def _map_inputs(self) -> set[str]:
        """The inputs that are maps of texts already."""
        return {c.name for c in self.mapping.inputs if c.type is SqlType.TEXT_MAP}

    @cached_property
    def _bill_columns(self) -> dict[str, dict[str, str]]:
        """The types of the columns of the bill, by dataset."""
        return {
            dataset: {
                name: sql_type
                for name, sql_type in self._columns(relation).items()
                if name not in (*ADDED_COLUMNS, _ROW_NUMBER)
            }
            for dataset, relation in self.sources.items()
        }

    @cached_property
    def _lookup_columns(self) -> dict[str, list[str]]:
        """The columns of the table of each lookup."""
        return {lookup.name: [*self._columns(_table(lookup))] for lookup in self.mapping.lookups}

    @cached_property
    def _vendor_columns(self) -> list[str]:
        """The columns of the bill that pass through, in the bill's order."""
        mapped = {name.lower() for name in (*self.mapping.columns, *self.mapping.derived)}
        inputs = {column.name for column in self.mapping.inputs}
        return [
            name
            for name in self._columns(Sql("bill"))
            if name.startswith("x_") and name.lower() not in mapped and name not in inputs
        ]


def x_column_name(column: str) -> str:
    """Return the name that a column of the bill has in the charges.

    It is the column's name with `x_` before it; a name that begins with `x_` stays.
    """
    return column if column.startswith("x_") else f"x_{column}"


def _cast(sql: Sql, column_type: Sql, texts: Collection[str] | None) -> Sql:
    """Return SQL of a cell in its column's type, or as an ENUM if the texts of a text are known."""
    if texts and str(column_type) == SqlType.TEXT:
        column_type = enum_type(texts)
    return Sql(f"CAST({sql} AS {column_type})")


def _case(cells: Mapping[int, Sql], otherwise: Sql | None) -> Sql:
    """Return the SQL that picks a cell by `charge`; all have one if `otherwise` is None."""
    if len(set(cells.values())) <= 1 and otherwise is None:
        return next(iter(cells.values()))
    if not cells and otherwise is not None:
        return otherwise
    if otherwise is not None:
        # Most line items become the first charge, and each WHEN before theirs takes time for them.
        cells = {0: otherwise, **cells}
    cases = " ".join(f"WHEN {number} THEN {cell}" for number, cell in cells.items())
    ending = "" if otherwise is None else f" ELSE {otherwise}"
    return Sql(f"CASE charge {cases}{ending} END")


def _combinations_join(column: Input, dataset: str, names: Collection[str]) -> Sql:
    """Return the join of a bill with the table of a built input's values."""
    table = _combinations_table(column, dataset)
    on = " AND ".join(
        f"bill.{quoted(name)} IS NOT DISTINCT FROM {table}.{_key(number)}"
        for number, name in enumerate(names)
    )
    return Sql(f"LEFT JOIN {table} ON {on}")


def _key(number: int) -> Sql:
    return quoted(f"key {number}")


def _combinations_table(column: Input, dataset: str) -> Sql:
    return quoted(f"{column.name} of {dataset}")


def _identifiers(texts: Iterable[str]) -> set[str]:
    """Return all identifiers in SQL; among them are the columns that it reads."""
    return {name for text in texts for name in re.findall(r"\w+", text)}


def _join(lookup: Lookup, names: Sequence[str]) -> tuple[Sql, Sql]:
    """Return the columns that a lookup adds, and the join with its table of columns `names`."""
    table = _table(lookup)
    on = (
        f"{table}.{quoted(name)} = ({key})" for name, key in zip(names, lookup.keys, strict=False)
    )
    columns = f"{table}.*, {table}.{quoted(names[0])} IS NOT NULL AS {_is_known(lookup)}"
    return Sql(columns), Sql(f"LEFT JOIN {table} ON {' AND '.join(on)}")


def _table(lookup: Lookup) -> Sql:
    return quoted(f"lookup_{lookup.name}")


def _is_known(lookup: Lookup) -> Sql:
    return quoted(f"{lookup.name}_is_known")
