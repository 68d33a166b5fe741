"""The digests of a month's columns in PostgreSQL, by the same MD5 as in DuckDB."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal, quoted
from finops_dagster.billing.errors import BillError
from finops_dagster.tables.digest import (
    BETWEEN_KEY_AND_VALUE,
    HEX_DIGITS,
    MAPS,
    column_type,
    value_type,
)
from finops_dagster.warehouses.postgresql.columns import (
    MONEY,
    OVERFLOW,
    READ_AS,
    type_of,
    within_limit,
)

# A query has at most 1,664 columns in its answer.
COLUMNS_AT_ONCE = 400


def count_and_total(field: pa.Field, held: Mapping[str, Sql]) -> Sql:
    """Return the SQL of how many cells of a column of the file have a value in the table, whose
    columns have the types `held`, and of the sum of their hashes. Raises BillError for a column
    that is not there, or of a type that can be no bill's."""
    cell, of_type = _cell(field, held), column_type(field.type)
    if of_type not in MAPS:
        return Sql(f"count({cell}), sum({_number(_text(cell, of_type))})::text")
    value = _text(Sql("value"), value_type(of_type))
    entry = _number(Sql(f"key || chr({BETWEEN_KEY_AND_VALUE}) || {value}"))
    entries = Sql(f"(SELECT sum({entry}) FROM jsonb_each_text({cell}))")
    return Sql(f"count({cell}), sum({entries})::text")


def _cell(field: pa.Field, held: Mapping[str, Sql]) -> Sql:
    """The column, or the key of the overflow that it is here, as the type that the file gives."""
    column, wanted = within_limit(field.name), type_of(field)
    if column not in held and OVERFLOW in held:
        return Sql(f"{quoted(OVERFLOW)} ->> {literal(field.name)}")
    is_now = held.get(column)
    if is_now == wanted:
        return quoted(column)
    if is_now is None:
        raise BillError(f"it has no column {column}")
    if (is_now, wanted) not in READ_AS:
        raise BillError(f"its column {column} is {is_now}, and not {wanted}")
    return Sql(READ_AS[is_now, wanted].format(quoted(column)))


def _text(cell: Sql, of_type: str) -> Sql:
    match of_type:
        case SqlType.TEXT:
            return cell
        case SqlType.MONEY:
            return Sql(f"{cell}::{MONEY}::text")
        case SqlType.TIME:
            return Sql(f"(extract(epoch FROM {cell}) * 1000000)::bigint::text")
    return Sql(f"to_char({cell}, 'YYYY-MM-DD')")


def _number(text: Sql) -> Sql:
    digits = f"substr(md5(convert_to({text}, 'UTF8')), 1, {HEX_DIGITS})"
    return Sql(f"('x' || {digits})::bit({4 * HEX_DIGITS})::bigint")
