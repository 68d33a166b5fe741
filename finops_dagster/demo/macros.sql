-- What the bills of all clouds are made with; the same text or number gives the same on every machine.

CREATE MACRO value_if(condition, value) AS CASE WHEN condition THEN value END;
CREATE MACRO iso_time(t) AS strftime(t, '%Y-%m-%dT%H:%M:%SZ');
CREATE MACRO map_without_nulls(entries) AS
    map_from_entries(list_filter(entries, lambda entry: entry.value IS NOT NULL));
-- Letters that depend on the text alone: a SKU, an invoice's id.
CREATE MACRO token(text, size, letters := 'ABCDEFGHJKMNPQRSTUVWXYZ23456789') AS
    array_to_string(list_transform(range(size), lambda n:
        letters[1 + ('0x' || sha256(text)[2 * n + 1:2 * n + 2])::INT % length(letters)]
    ), '');
CREATE MACRO digits(text, size) AS token(text, size, letters := '123456789');
-- The fifth power modulo a prime p: a permutation of 0..p-1, as 5 and p-1 have no common factor.
CREATE MACRO squared(x) AS (x * x) % 2147483647;
CREATE MACRO scatter(x) AS
    squared(x % 2147483647) * squared(x % 2147483647) % 2147483647 * (x % 2147483647) % 2147483647;
-- Numbers that look independent, from one scattered number.
CREATE MACRO draw(scattered, multiplier) AS (scattered * multiplier) % 2147483647;
