"""What is a number, whichever kind of file it came in, and what is done with more than 18 decimals.

A sign, digits with at most one point, an exponent of at most three digits such as AWS writes
(`4.0E-7`), or any exponent of zero; blanks around it do not count. No underscore, comma, currency.
"""

# DuckDB's own cast takes underscores too, rounds the 19th decimal in silence, halves away from
# zero, and makes 0 of an exponent after many digits. So it only gets what is too short to have 19
# decimals, or what `number_of` has written out: a point, no exponent, no zero at the end.
# A list of one element, with a lambda over it, is how SQL gives a value a name.
# What refuses is a cast that must fail: error() is volatile, and TRY takes nothing volatile.
# An integer of less than 2^53, divided by 1e18, is the double nearest to its decimal: a double that
# this gives back has at most 18 decimals, and needs no text.
NUMBER_MACROS = r"""
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
