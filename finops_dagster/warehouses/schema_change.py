"""Schema changes: columns that a month adds to its table or makes text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import SqlType, merged_type, quoted
from finops_dagster.billing.errors import BillError, excerpt
from finops_dagster.warehouses.base_dialect import BaseDialect
from finops_dagster.warehouses.month_file import TEXT_TO_NUMBER, MonthFile


@dataclass(frozen=True)
class SchemaChange:
    """The changes that a month makes to its table's columns.

    Mappings are by column name, as `BaseDialect.target_columns` gives it.
    """

    new_columns: Mapping[str, str]
    """The data type of each column that the table lacks."""
    cast_to_text: Mapping[str, str]
    """The present data type of each column that becomes text."""
    target_types: Mapping[str, str]
    """The data type, after the load, of every column that the month has."""
    warnings: tuple[str, ...]
    """A line for people about each column whose types differ."""


def required_change(dialect: BaseDialect, file: MonthFile) -> SchemaChange:
    """Compare the month's columns with the table's, and return what must change.

    Changes nothing itself. Without a table, all columns are new. If the types differ, a text column
    stays text. A column of times or text maps becomes text if the month has text, times or text
    maps, and the dialect can cast it. A column of numbers takes text if the dialect
    `accepts_text_as_number`. Raises BillError for every other difference.
    """
    new_columns, cast_to_text, target_types, warnings = {}, {}, {}, []
    for name, file_type in dialect.target_columns(file).items():
        if not dialect.has_columns(file.table, [name]):
            new_columns[name] = target_types[name] = file_type
            continue
        stored_type = dialect.stored_type(file.table, name, file_type)
        is_known = stored_type in dialect.column_types
        old_native = dialect.column_types[stored_type].native if is_known else stored_type
        new_native = dialect.column_types[file_type].native
        target = _target_type(dialect, stored_type, file_type)
        becomes_text = target != stored_type
        if target is None or (becomes_text and not dialect.column_types[stored_type].to_text):
            raise BillError(
                f"column {name} of {dialect.full_name(file.table)} is {old_native}, but "
                f"{file.month} has {new_native}; change the type of the table's column, or give "
                "the export another table"
            )
        target_types[name] = target
        if becomes_text:
            cast_to_text[name] = stored_type
            reason = f"because {file.month} has {new_native}; cast it in queries"
            warnings.append(f"{name} changed from {old_native} to text, {reason}")
        elif target != file_type:
            reason = f"although {file.month} has {new_native}; nothing needs to be done"
            warnings.append(f"{name} stays {old_native}, {reason}")
    return SchemaChange(new_columns, cast_to_text, target_types, tuple(warnings))


def _target_type(dialect: BaseDialect, stored_type: str, file_type: str) -> str | None:
    takes_text = stored_type in TEXT_TO_NUMBER and dialect.accepts_text_as_number
    if takes_text and file_type == SqlType.TEXT:
        return stored_type
    return merged_type(stored_type, file_type)


def refuse_inexact_text(
    dialect: BaseDialect, connection: DuckDBPyConnection, file: MonthFile, change: SchemaChange
) -> None:
    """Raise BillError if the file has a text that cannot be stored exactly in a column of numbers.

    Reads the file by `connection`, a DuckDB that needs the macros of `prepare_casts`.
    """
    for name, target in change.target_types.items():
        if file.data_types.get(name) != SqlType.TEXT or target == SqlType.TEXT:
            continue
        cast = TEXT_TO_NUMBER[target].format(quoted(name))
        relation, _ = file.lake_file.relation_and_location(connection, [name])
        for (text,) in connection.execute(
            f"SELECT {quoted(name)} FROM {relation} "
            f"WHERE {quoted(name)} IS NOT NULL AND TRY({cast}) IS NULL LIMIT 1"
        ).fetchall():
            raise BillError(
                f"column {name} of {dialect.full_name(file.table)}: {excerpt(text)} in "
                f"{file.location} cannot be kept exactly as {dialect.native_type(target)}; "
                "give the export another name and table"
            )
