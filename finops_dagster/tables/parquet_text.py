"""The text of a value in a Parquet file, as SQL: every digit stays, whatever the value's type."""

from __future__ import annotations

import json

import pyarrow as pa

from finops_dagster.billing.columns import Sql, literal


def plain_type(own: pa.DataType) -> pa.DataType:
    """Return the type in which DuckDB reads the values: a dictionary is how they are stored, and
    an extension of Arrow's is a name for the type beneath it."""
    if pa.types.is_dictionary(own):
        return plain_type(own.value_type)
    if isinstance(own, pa.BaseExtensionType) and not isinstance(own, pa.JsonType | pa.UuidType):
        return plain_type(own.storage_type)
    return own


def is_plain_text(own: pa.DataType) -> bool:
    """Return whether the values are text or bytes, which DuckDB reads as text."""
    kinds = "string large_string string_view binary large_binary binary_view fixed_size_binary"
    return any(getattr(pa.types, f"is_{kind}")(own) for kind in kinds.split())


def text_of(own: pa.DataType, raw: Sql) -> Sql:
    """Return the SQL of a value's text: a time by `time_as_text`, a list, a struct or a map in
    JSON, and anything else as DuckDB writes it."""
    own = plain_type(own)
    if pa.types.is_nested(own):
        return _json_of_nested(own, raw, 0)
    if pa.types.is_timestamp(own):
        return time_as_text(raw)
    text = Sql(f"CAST({raw} AS VARCHAR)")
    if pa.types.is_decimal(own) and own.precision == own.scale:  # `.5`, which is no number in JSON
        return Sql(f"regexp_replace({text}, '^(-?)[.]', '\\10.')")
    return text


def time_as_text(raw: Sql) -> Sql:
    """Return the SQL of a TIMESTAMP's text: `2024-01-31T23:30:00.25Z`, with the decimals that it
    has. One with a time zone is in UTC, as `SET TimeZone = 'UTC'` says."""
    return Sql(f"replace(split_part(CAST({raw} AS VARCHAR), '+', 1), ' ', 'T') || 'Z'")


def _json_of(own: pa.DataType, raw: Sql, depth: int) -> Sql:
    """`to_json` of DuckDB writes 32-bit floats as doubles, and renames fields of one spelling."""
    own = plain_type(own)
    if pa.types.is_nested(own):
        return _json_of_nested(own, raw, depth)
    text = text_of(own, raw)
    in_quotes = Sql(f"CAST(to_json({text}) AS VARCHAR)")
    if pa.types.is_floating(own):  # JSON has no NaN
        return Sql(f"CASE WHEN isfinite({raw}) THEN {text} ELSE {in_quotes} END")
    is_bare = pa.types.is_boolean(own) or pa.types.is_integer(own) or pa.types.is_decimal(own)
    return text if is_bare or isinstance(own, pa.JsonType) else in_quotes


def _json_of_nested(own: pa.DataType, raw: Sql, depth: int) -> Sql:
    item = Sql(f"item{int(depth)}")
    if pa.types.is_struct(own):
        fields = " || ',' || ".join(
            f"{literal(json.dumps(field.name, ensure_ascii=False))} || ':' || "
            f"{_or_null(_json_of(field.type, Sql(f'struct_extract_at({raw}, {int(n)})'), depth))}"
            for n, field in enumerate(own, 1)
        )
        return Sql(f"CASE WHEN {raw} IS NOT NULL THEN '{{' || {fields} || '}}' END")
    if pa.types.is_map(own):
        key = text_of(own.key_type, Sql(f"{item}.key"))
        value = _or_null(_json_of(own.item_type, Sql(f"{item}.value"), depth + 1))
        items = Sql(f"map_entries({raw})")
        element, begin, end = Sql(f"to_json({key}) || ':' || {value}"), Sql("{"), Sql("}")
    else:
        element = _or_null(_json_of(own.value_type, item, depth + 1))
        items, begin, end = raw, Sql("["), Sql("]")
    elements = Sql(f"list_transform({items}, lambda {item}: {element})")
    return Sql(f"'{begin}' || array_to_string({elements}, ',') || '{end}'")


def _or_null(json_text: Sql) -> Sql:
    return Sql(f"coalesce({json_text}, 'null')")
