"""SQL expressions that both dialects of PostgreSQL share."""

from __future__ import annotations

from finops_dagster.billing.columns import Sql

TIME_AS_TEXT = Sql(
    "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'"
)
AMOUNT_OF_TEXT = Sql("CASE WHEN {0} ~ '^-?[0-9]+([.][0-9]+)?$' THEN {0}::numeric END")
