"""Schema changes: columns that a month adds to its table or makes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import SqlType, merged_type, quoted
from finops_dagster.billing.errors import BillError, excerpt
from finops_dagster.lake import parquet_relation
from finops_dagster.warehouses.base_dialect import BaseDialect
from finops_dagster.warehouses.month_file import TEXT_TO_AMOUNT, MonthFile


@dataclass(frozen=True)
class SchemaChange:
    """What a month changes of its table's columns, by the names of the target columns."""

    new_columns: Mapping[str, str]
    """The data type of each column that the table lacks."""
    cast_to_text: Mapping[str, str]
    """The present data type of each column that becomes text."""
    target_types: Mapping[str, str]
    """The data type of every column after the load."""
    warnings: tuple[str, ...]


def schema_change(dialect: BaseDialect, file: MonthFile) -> SchemaChange:
    """Return what the month changes of its table's columns.

    Where the types differ, text stays text, amounts stay amounts, and a time or a map becomes
    text. Raises BillError for every other difference.
    """
    new_columns, cast_to_text, target_types, warnings = {}, {}, {}, []
    for name, file_type in dialect.target_columns(file).items():
        if not dialect.has_columns(file.table, [name]):
            new_columns[name] = target_types[name] = file_type
            continue
        stored = dialect.stored_type(file.table, name, file_type)
        old = dialect.column_types[stored].native if stored in dialect.column_types else stored
        new = dialect.column_types[file_type].native
        target = _target_type(dialect, stored, file_type)
        if target is None or (target != stored and not dialect.column_types[stored].to_text):
            raise BillError(
                f"column {name} of {dialect.full_name(file.table)} is {old}, but {file.month} has "
                f"{new}; change the column's type, or give the export another table"
            )
        target_types[name] = target
        if target != stored:
            cast_to_text[name] = stored
            warnings.append(f"{name} changed from {old} to text, because {file.month} has {new}")
        elif target != file_type:
            warnings.append(f"{name} stays {old}, although {file.month} has {new}")
    return SchemaChange(new_columns, cast_to_text, target_types, tuple(warnings))


def _target_type(dialect: BaseDialect, stored: str, file_type: str) -> str | None:
    is_amount = stored in TEXT_TO_AMOUNT and dialect.accepts_text_as_amount
    return stored if is_amount and file_type == SqlType.TEXT else merged_type(stored, file_type)


def refuse_inexact_text(
    dialect: BaseDialect, connection: DuckDBPyConnection, file: MonthFile, change: SchemaChange
) -> None:
    """Raise BillError for the first text that cannot be an exact amount of its target column."""
    for name, target in change.target_types.items():
        if file.data_types.get(name) != SqlType.TEXT or target == SqlType.TEXT:
            continue
        cast = TEXT_TO_AMOUNT[target].format(quoted(name))
        for (text,) in connection.execute(
            f"SELECT {quoted(name)} FROM {parquet_relation(file.path)} "
            f"WHERE {quoted(name)} IS NOT NULL AND TRY({cast}) IS NULL LIMIT 1"
        ).fetchall():
            raise BillError(
                f"column {name} of {dialect.full_name(file.table)}: {excerpt(text)} in {file.path} "
                f"cannot be kept exactly as {dialect.native_type(target)}; give the export another "
                "name and table"
            )
