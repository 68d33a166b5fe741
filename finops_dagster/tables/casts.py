"""DuckDB macros that cast text to amounts, times and maps: exactly, or with an error.

A number is a sign, digits with at most one point, and an exponent of at most three digits
(`4.0E-7`), or an exponent of any length where the digits are zeros; blanks around it are ignored.
Underscores, commas and currency signs are errors. The `rounded_` macros round numbers of more than
18 decimals, half to even; the `exact_` macros refuse them.
"""

from __future__ import annotations

import duckdb

# DuckDB's own cast accepts underscores, rounds the 19th decimal silently and halves away from zero,
# and returns 0 for an exponent after many digits. So it only gets cells that are too short to have
# 19 decimals, or that `plain_number` has rewritten: a point, no exponent, no trailing zero.
# A list of one element, with a lambda over it, is how SQL names an intermediate value.
# A cell is refused by a cast that must fail: error() is volatile, and TRY takes nothing volatile.
# An integer below 2^53, divided by 1e18, is the double nearest to its decimal. A double that this
# division reproduces has at most 18 decimals, and need not be read as text.
_NUMBERS = r"""
CREATE OR REPLACE TEMP MACRO is_unusual(cell) AS strlen(cell) > 19
    OR contains(cell, 'e') OR contains(cell, 'E') OR contains(cell, '_');
CREATE OR REPLACE TEMP MACRO plain_number(cell) AS list_transform(list_transform(
    [regexp_extract(cell,
    '^[\t-\r ]*([+-]?)(?:(0)0*\.?0*[eE][+-]?\d+|(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,3}))?)[\t-\r ]*$',
    ['sign', 'zero', 'whole', 'part', 'exponent'])],
    lambda n: {
        'sign': n.sign,
        'digits': nullif(n.zero || n.whole || n.part, ''),
        'point': length(n.whole) + coalesce(TRY_CAST(n.exponent AS INTEGER), 0)}),
    lambda n: rtrim(
        n.sign || '0'
        || left(n.digits || repeat('0', n.point - length(n.digits)), greatest(n.point, 0)) || '.'
        || repeat('0', -n.point) || substr(n.digits, greatest(n.point, 0) + 1), '0'));
CREATE OR REPLACE TEMP MACRO exact_decimal(cell) AS CASE
    WHEN is_unusual(cell) THEN list_transform(plain_number(cell), lambda n: CAST(CASE
        WHEN contains(right(n, 19), '.') THEN n
        ELSE 'not exact: ' || cell END AS DECIMAL(38,18)))[1]
    ELSE CAST(cell AS DECIMAL(38,18)) END;
CREATE OR REPLACE TEMP MACRO rounded_decimal(cell) AS CASE
    WHEN is_unusual(cell) THEN list_transform(plain_number(cell), lambda n: CAST(CASE
        WHEN left(right(n, 20), 1) = '.' AND right(n, 2) IN ('05', '25', '45', '65', '85')
            THEN left(n, -1)
        ELSE coalesce(n, 'not a number: ' || cell) END AS DECIMAL(38,18)))[1]
    ELSE CAST(cell AS DECIMAL(38,18)) END;
CREATE OR REPLACE TEMP MACRO exact_map(amounts) AS map_from_entries(list_transform(
    map_entries(amounts),
    lambda entry: {'key': entry.key, 'value': exact_decimal(CAST(entry.value AS VARCHAR))}));
CREATE OR REPLACE TEMP MACRO rounded_map(amounts) AS map_from_entries(list_transform(
    map_entries(amounts),
    lambda entry: {'key': entry.key, 'value': rounded_decimal(CAST(entry.value AS VARCHAR))}));
CREATE OR REPLACE TEMP MACRO has_19_decimals(cell) AS
    CASE WHEN is_unusual(cell) THEN contains(right(plain_number(cell)[1], 19), '.') = false END;
CREATE OR REPLACE TEMP MACRO number_to_round(cell) AS
    CASE WHEN has_19_decimals(cell) THEN [cell] END;
CREATE OR REPLACE TEMP MACRO double_to_round(amount) AS CASE
    WHEN abs(amount) < 0.01 AND round(amount * 1e18) / 1e18 <> amount
        THEN number_to_round(CAST(amount AS VARCHAR)) END;
CREATE OR REPLACE TEMP MACRO numbers_to_round_in_map(amounts) AS nullif(list_filter(
    list_transform(map_values(amounts), lambda amount: CAST(amount AS VARCHAR)),
    lambda cell: has_19_decimals(cell)), []);
CREATE OR REPLACE TEMP MACRO rounding_change(cell) AS list_transform(list_transform(
    plain_number(cell),
    lambda n: {
        'sign': CASE WHEN n[1] = '-' THEN -1 ELSE 1 END,
        'is_odd': n[strpos(n, '.') + 18] IN ('1', '3', '5', '7', '9'),
        'rest': CASE WHEN contains(right(n, 47), '.')
            THEN CAST('0.' || substr(n, strpos(n, '.') + 19) AS DECIMAL(38,28)) END}),
    lambda n: n.sign * (
        CASE WHEN n.rest > 0.5 OR (n.rest = 0.5 AND n.is_odd) THEN 1 ELSE 0 END - n.rest))[1];
"""

# DuckDB's cast to TIMESTAMP drops an offset such as +01:00, and its cast to TIMESTAMPTZ applies it.
# Nearly all cells have the first form below, for which the faster cast to TIMESTAMP does the same.
# Both accept "infinity", years of five digits and years before Christ, and cut what is finer than a
# microsecond; these cells are refused.
# DuckDB reads a number in JSON as a double. `mark_numbers` turns numbers into strings that begin
# with a character that no other text of the map has. So they stay as the vendor wrote them, also
# within nested lists and objects. `unmark_number` removes the mark.
# Azure writes the tags of some agreements without braces, and a key with several values once for
# each: its values become a list in JSON. A map's key that occurs twice would lose all but one.
# A year of two digits is no year: `strptime` reads 9/2/23 as of the year 23.
_TIMES_AND_MAPS = r"""
CREATE OR REPLACE TEMP MACRO utc_timestamp(cell) AS CASE
    WHEN cell LIKE '____-__-__T__:__:__Z' AND cell >= '0001' THEN CAST(cell AS TIMESTAMP)
    WHEN cell[5] <> '-' OR cell < '0001' OR contains(cell, '(')
        OR (contains(cell, '.') AND regexp_matches(cell, '\.\d{6}\d*[1-9]'))
        THEN CAST('not exact: ' || cell AS TIMESTAMP)
    ELSE CAST(CAST(cell AS TIMESTAMPTZ) AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO calendar_timestamp(value) AS CASE
    WHEN CAST(value AS TIMESTAMP) NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'
        THEN CAST('not exact: ' || value AS TIMESTAMP)
    ELSE CAST(value AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO formatted_timestamp(cell, format) AS list_transform(
    [strptime(cell, format)],
    lambda time: CASE WHEN time < '1000-01-01' THEN CAST('not exact: ' || cell AS TIMESTAMP)
        ELSE time END)[1];
CREATE OR REPLACE TEMP MACRO with_braces(cell) AS
    CASE WHEN left(ltrim(cell), 1) = '"' THEN '{' || cell || '}' ELSE cell END;
CREATE OR REPLACE TEMP MACRO text_in_pairs(cell, place) AS list_transform(
    regexp_extract_all(
        cell, '("(?:[^"\\]|\\.)*")\s*:\s*("(?:[^"\\]|\\.)*"|[^\s,}]+)', place),
    lambda json: CAST(json AS JSON) ->> '$');
CREATE OR REPLACE TEMP MACRO grouped_map(cell) AS list_transform(
    [list_zip(text_in_pairs(cell, 1), text_in_pairs(cell, 2))],
    lambda pairs: map_from_entries(list_transform(
        list_sort(list_distinct(list_transform(pairs, lambda pair: pair[1]))),
        lambda key: list_transform(
            [list_transform(list_filter(pairs, lambda pair: pair[1] = key), lambda pair: pair[2])],
            lambda texts: {
                'key': key,
                'value': CASE WHEN len(texts) = 1 THEN texts[1]
                    ELSE CAST(to_json(texts) AS VARCHAR) END})[1])))[1];
CREATE OR REPLACE TEMP MACRO map_of_json(cell) AS coalesce(
    TRY(CAST(CAST(cell AS JSON) AS MAP(VARCHAR, VARCHAR))),
    CASE WHEN json_valid(cell) AND regexp_matches(
            regexp_replace(cell, '"(?:[^"\\]|\\.)*"', '', 'g'), '^\s*\{[^{}\[\]]*\}\s*$')
        THEN grouped_map(cell)
        ELSE CAST(CAST(cell AS JSON) AS MAP(VARCHAR, VARCHAR)) END);
CREATE OR REPLACE TEMP MACRO mark_numbers(json) AS CASE
    WHEN contains(json, '\u0001') THEN 'not exact: ' || json
    ELSE left(regexp_replace(
        json, '((?:"(?:[^"\\]|\\.)*"|[^"\d-])*)(-?\d[\d.eE+-]*|$)', '\1"\\u0001\2"', 'g'), -8) END;
CREATE OR REPLACE TEMP MACRO unmark_number(value) AS CASE
    WHEN value[1] = chr(1) THEN value[2:]
    ELSE regexp_replace(value, '"\\u0001([^"]*)"', '\1', 'g') END;
CREATE OR REPLACE TEMP MACRO text_map_of_json(cell) AS CASE
    WHEN regexp_matches(cell, '[:,\[]\s*[-\d]') AND json_valid(cell)
        THEN map_from_entries(list_transform(
            map_entries(map_of_json(mark_numbers(cell))),
            lambda entry: {'key': entry.key, 'value': unmark_number(entry.value)}))
    ELSE map_of_json(cell) END;
CREATE OR REPLACE TEMP MACRO text_map(cell) AS text_map_of_json(with_braces(cell));
CREATE OR REPLACE TEMP MACRO map_of_unique_keys(texts) AS CASE
    WHEN list_unique(map_keys(texts)) <> cardinality(texts)
        THEN map_from_entries(map_entries(texts))
    ELSE texts END;
"""


def prepare_casts(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the macros of this module on a connection, and set its time zone to UTC.

    They are temporary. A second call changes nothing.
    """
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(_NUMBERS)
    connection.execute(_TIMES_AND_MAPS)
