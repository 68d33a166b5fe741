"""What a valid cell is, as macros of DuckDB, whichever kind of file it came in: kept exactly, or an
error.

A number is a sign, digits with at most one point, an exponent of at most three digits (`4.0E-7`),
or any exponent of zero; blanks around it do not count. No underscore, comma,
currency. `rounded_` takes more than 18 decimals, and rounds them half to even.
"""

from __future__ import annotations

import duckdb

# DuckDB's own cast takes underscores too, rounds the 19th decimal in silence, halves away from
# zero, and makes 0 of an exponent after many digits. So it only gets what is too short to have 19
# decimals, or what `number_of` has written out: a point, no exponent, no zero at the end.
# A list of one element, with a lambda over it, is how SQL gives a value a name.
# What refuses is a cast that must fail: error() is volatile, and TRY takes nothing volatile.
# An integer of less than 2^53, divided by 1e18, is the double nearest to its decimal: a double that
# this gives back has at most 18 decimals, and needs no text.
_NUMBERS = r"""
CREATE OR REPLACE TEMP MACRO is_unusual(cell) AS strlen(cell) > 19
    OR contains(cell, 'e') OR contains(cell, 'E') OR contains(cell, '_');
CREATE OR REPLACE TEMP MACRO number_of(cell) AS list_transform(list_transform(
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
    WHEN is_unusual(cell) THEN list_transform(number_of(cell), lambda n: CAST(CASE
        WHEN contains(right(n, 19), '.') THEN n
        ELSE 'not exactly: ' || cell END AS DECIMAL(38,18)))[1]
    ELSE CAST(cell AS DECIMAL(38,18)) END;
CREATE OR REPLACE TEMP MACRO rounded_decimal(cell) AS CASE
    WHEN is_unusual(cell) THEN list_transform(number_of(cell), lambda n: CAST(CASE
        WHEN left(right(n, 20), 1) = '.' AND right(n, 2) IN ('05', '25', '45', '65', '85')
            THEN left(n, -1)
        ELSE coalesce(n, 'no number: ' || cell) END AS DECIMAL(38,18)))[1]
    ELSE CAST(cell AS DECIMAL(38,18)) END;
CREATE OR REPLACE TEMP MACRO exact_map(amounts) AS map_from_entries(list_transform(
    map_entries(amounts),
    lambda entry: {'key': entry.key, 'value': exact_decimal(CAST(entry.value AS VARCHAR))}));
CREATE OR REPLACE TEMP MACRO rounded_map(amounts) AS map_from_entries(list_transform(
    map_entries(amounts),
    lambda entry: {'key': entry.key, 'value': rounded_decimal(CAST(entry.value AS VARCHAR))}));
CREATE OR REPLACE TEMP MACRO has_19_decimals(cell) AS
    CASE WHEN is_unusual(cell) THEN contains(right(number_of(cell)[1], 19), '.') = false END;
CREATE OR REPLACE TEMP MACRO finer(cell) AS CASE WHEN has_19_decimals(cell) THEN [cell] END;
CREATE OR REPLACE TEMP MACRO finer_double(amount) AS CASE
    WHEN abs(amount) < 0.01 AND round(amount * 1e18) / 1e18 <> amount
        THEN finer(CAST(amount AS VARCHAR)) END;
CREATE OR REPLACE TEMP MACRO finer_in_map(amounts) AS nullif(list_filter(
    list_transform(map_values(amounts), lambda amount: CAST(amount AS VARCHAR)),
    lambda cell: has_19_decimals(cell)), []);
CREATE OR REPLACE TEMP MACRO rounded_by(cell) AS list_transform(list_transform(
    number_of(cell),
    lambda n: {
        'sign': CASE WHEN n[1] = '-' THEN -1 ELSE 1 END,
        'is_odd': n[strpos(n, '.') + 18] IN ('1', '3', '5', '7', '9'),
        'rest': CASE WHEN contains(right(n, 47), '.')
            THEN CAST('0.' || substr(n, strpos(n, '.') + 19) AS DECIMAL(38,28)) END}),
    lambda n: n.sign * (
        CASE WHEN n.rest > 0.5 OR (n.rest = 0.5 AND n.is_odd) THEN 1 ELSE 0 END - n.rest))[1];
"""

# DuckDB's cast to TIMESTAMP drops an offset such as +01:00; through TIMESTAMPTZ it is honoured. It
# also takes "infinity", years of five digits or before Christ, and drops what is finer than a
# microsecond.
# JSON numbers would pass through a double. In quotes, after a character that no text of a map has,
# they stay the text that the vendor wrote, also within values that are lists or objects.
_TIMES_AND_MAPS = r"""
CREATE OR REPLACE TEMP MACRO utc_timestamp(cell) AS CASE
    WHEN cell[5] <> '-' OR cell < '0001' OR contains(cell, '(')
        OR (contains(cell, '.') AND regexp_matches(cell, '\.\d{6}\d*[1-9]'))
        THEN CAST('not exactly: ' || cell AS TIMESTAMP)
    ELSE CAST(CAST(cell AS TIMESTAMPTZ) AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO time_of_calendar(moment) AS CASE
    WHEN CAST(moment AS TIMESTAMP) NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'
        THEN CAST('not exactly: ' || moment AS TIMESTAMP)
    ELSE CAST(moment AS TIMESTAMP) END;
CREATE OR REPLACE TEMP MACRO map_of_json(cell) AS
    CAST(CAST(cell AS JSON) AS MAP(VARCHAR, VARCHAR));
CREATE OR REPLACE TEMP MACRO numbers_marked(json) AS CASE
    WHEN contains(json, '\u0001') THEN 'not exactly: ' || json
    ELSE left(regexp_replace(
        json, '((?:"(?:[^"\\]|\\.)*"|[^"\d-])*)(-?\d[\d.eE+-]*|$)', '\1"\\u0001\2"', 'g'), -8) END;
CREATE OR REPLACE TEMP MACRO unmarked(value) AS CASE
    WHEN value[1] = chr(1) THEN value[2:]
    ELSE regexp_replace(value, '"\\u0001([^"]*)"', '\1', 'g') END;
CREATE OR REPLACE TEMP MACRO text_map(cell) AS CASE
    WHEN regexp_matches(cell, '[:,\[]\s*[-\d]') AND json_valid(cell)
        THEN map_from_entries(list_transform(
            map_entries(map_of_json(numbers_marked(cell))),
            lambda entry: {'key': entry.key, 'value': unmarked(entry.value)}))
    ELSE map_of_json(cell) END;
CREATE OR REPLACE TEMP MACRO map_of_unique_keys(texts) AS CASE
    WHEN list_unique(map_keys(texts)) <> cardinality(texts)
        THEN map_from_entries(map_entries(texts))
    ELSE texts END;
"""


def prepare_casts(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a connection the exact casts."""
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(_NUMBERS)
    connection.execute(_TIMES_AND_MAPS)
