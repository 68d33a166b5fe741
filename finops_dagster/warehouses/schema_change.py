"""What a month changes of the columns of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import SqlType, merged_type, quoted
from finops_dagster.billing.errors import BillError, excerpt
from finops_dagster.lake import parquet_relation
from finops_dagster.warehouses.month_file import AMOUNTS_OF_TEXT, MonthFile
from finops_dagster.warehouses.session import Session


@dataclass(frozen=True)
class Change:
    """What a month changes of its table, by the names of the file's columns: those that are new,
    those that become text and what they are until then, and the type of each afterwards."""

    new: Mapping[str, str]
    becoming_text: Mapping[str, str]
    kept: Mapping[str, str]
    warnings: tuple[str, ...]


def change_of(session: Session, file: MonthFile) -> Change:
    """Return what the month changes of its table: text takes anything, amounts stay amounts,
    and a time or a map becomes text. Raises BillError for a column that can be neither."""
    new, becoming_text, kept, warnings = {}, {}, {}, []
    for name, given in session.columns_of(file).items():
        if not session.has(file.table, [name]):
            new[name] = kept[name] = given
            continue
        was = session.type_of(file.table, name, given)
        type_before = session.types[was].name_there if was in session.types else was
        type_given = session.types[given].name_there
        is_amount = was in AMOUNTS_OF_TEXT and session.takes_amounts_of_text
        kind = was if is_amount and given == SqlType.TEXT else merged_type(was, given)
        if kind is None or (kind != was and not session.types[was].as_text):
            raise BillError(
                f"column {name} of {session.full_name(file.table)} is {type_before}, the month's "
                f"is {type_given}; give the export another table or change it"
            )
        kept[name] = kind
        if kind != was:
            becoming_text[name] = was
            warnings.append(
                f"{name} was {type_before}, {file.month} gives {type_given}: it is text now"
            )
        elif kind != given:
            warnings.append(f"{name} stays {type_before}, {file.month} gives {type_given}")
    return Change(new, becoming_text, kept, tuple(warnings))


def refuse_other_text(
    session: Session, connection: DuckDBPyConnection, file: MonthFile, change: Change
) -> None:
    """Raise BillError, which names the first text that is not exactly the amount that its
    column holds."""
    for name, kept in change.kept.items():
        if file.types.get(name) != SqlType.TEXT or kept == SqlType.TEXT:
            continue
        cast = AMOUNTS_OF_TEXT[kept].format(quoted(name))
        for (text,) in connection.execute(
            f"SELECT {quoted(name)} FROM {parquet_relation(file.path)} "
            f"WHERE {quoted(name)} IS NOT NULL AND TRY({cast}) IS NULL LIMIT 1"
        ).fetchall():
            raise BillError(
                f"column {name} of {session.full_name(file.table)} is {session.sql_type(kept)}, "
                f"and {excerpt(text)} in {file.path} cannot be kept exactly as one; give the "
                "export another name and table"
            )
