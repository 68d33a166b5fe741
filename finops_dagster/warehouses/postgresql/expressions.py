"""SQL expressions of PostgreSQL, for the backends `postgresql` and `sql`; `{0}` is the cell."""

from __future__ import annotations

from finops_dagster.billing.columns import Sql

TIME_AS_TEXT = Sql(
    "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'"
)
"""The text that DuckDB writes for a time, such as `2024-01-31T23:30:00.25Z`."""
AMOUNT_OF_TEXT = Sql("CASE WHEN {0} ~ '^-?[0-9]+([.][0-9]+)?$' THEN {0}::numeric END")
"""The amount in a text without exponent; NULL for any other text."""
