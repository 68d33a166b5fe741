"""The column lineage of the charges: of which columns of the bill the mapping makes each one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping

from finops_dagster.focus.mapping import FocusMapping, Input
from finops_dagster.focus.query import x_column_name

_TEXT = re.compile(r"'[^']*'")


def bill_columns_of_charges(
    mapping: FocusMapping, columns: Mapping[str, str]
) -> dict[str, set[str]]:
    """Return, by column of the charges, the bill's columns from which its value is computed.

    `columns` are the bill's, with their types. Columns that only decide which kind a line item is
    do not count. A column of constants has no entry. Every column of the bill has an entry `x_...`,
    also if the charges do not have it because an input reads it.
    """
    # The bill's columns by the names in expressions; a step may use earlier steps and lookups.
    columns_by_name = {column.name: _columns_of_input(column, columns) for column in mapping.inputs}
    for lookup in mapping.lookups:
        bill_columns = _columns_in_sql(lookup.keys, columns_by_name)
        with lookup.path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file))
        columns_by_name |= {f"{lookup.name}_{name}": bill_columns for name in (*header, "is_known")}
    for step in mapping.steps:
        columns_by_name |= {
            name: _columns_in_sql([sql], columns_by_name) for name, sql in step.items()
        }
    charges = {
        name: _columns_in_sql([expression.sql, *_kind_expressions(mapping, name)], columns_by_name)
        for name, expression in mapping.columns.items()
    }
    for name, expression in mapping.derived.items():
        charges[name] = _columns_in_sql([expression.sql], charges)
    charges = {x_column_name(name): {name} for name in columns} | charges
    return {name: read for name, read in charges.items() if read}


def _kind_expressions(mapping: FocusMapping, name: str) -> Iterable[str]:
    """Return the expressions of a column that differ from the mapping's, of all kinds."""
    charges = (charge for kind in mapping.kinds for charge in kind.charges)
    return [charge.columns[name] for charge in charges if name in charge.columns]


def _columns_of_input(column: Input, columns: Mapping[str, str]) -> set[str]:
    if column.build is not None:
        return {*column.build(columns)[1]}
    # `product[region]` is an entry of the map `product`.
    names = (spelling.partition("[")[0] for spelling in (column.name, *column.spellings))
    return {name for name in names if name in columns}


def _columns_in_sql(texts: Iterable[str], columns_by_name: Mapping[str, set[str]]) -> set[str]:
    words = {word for text in texts for word in re.findall(r"\w+", _TEXT.sub("", text))}
    return {column for word in words & columns_by_name.keys() for column in columns_by_name[word]}
