"""Fills a report's tables of amounts, from the sums of the charges and the positions of lines.

Nothing is rounded, and currencies are never added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from math import gcd
from typing import Any

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.reports.document import AMOUNTS, EXACT, TABLES, Document

MOST_RESOURCES, MOST_RESOURCES_OF_A_SERVICE, MOST_UNTAGGED = 1_000, 5, 20
MOST_TAG_KEYS = 12
MOST_COMMITMENTS, MOST_COMMITMENT_ROWS = 50, 5_000
_DECIMALS = 18
# Larger whole numbers are rounded by JavaScript and others, which read them as doubles.
_LARGEST_NUMBER = 2**53

_PLACED = """
CREATE TEMP VIEW {view} AS
SELECT * REPLACE (
    CAST(date_diff('month', DATE {first_day}, month) AS INTEGER) AS month,
    list_position({currencies}, currency) - 1 AS currency
)
FROM {sums}
"""
_WITH_ACCOUNTS = Sql("""
(SELECT sums.* EXCLUDE (account), position AS account
FROM {sums} AS sums JOIN account_lines USING (provider, account, own_line, billed_line))
""")
_PLACED_SUMS: Mapping[Sql, str] = {
    Sql("placed_costs"): _WITH_ACCOUNTS.format(sums="cost_sums"),
    Sql("placed_usage"): _WITH_ACCOUNTS.format(sums="usage_sums"),
    Sql("placed_tag_keys"): "tag_key_sums",
    Sql("placed_resources"): "resource_sums",
}
_QUERIES: Mapping[str, Sql] = {
    "costs": Sql("""
        SELECT month, currency, account, service_lines.position AS service,
               sum(billed) AS billed, sum(effective) AS effective
        FROM placed_costs JOIN service_lines USING (provider, category, service)
        GROUP BY month, currency, account, service_lines.position
    """),
    "region_costs": Sql("""
        SELECT month, currency, account, region_lines.position AS region,
               sum(billed) AS billed, sum(effective) AS effective
        FROM placed_costs JOIN region_lines USING (provider, region)
        GROUP BY month, currency, account, region_lines.position
    """),
    "day_costs": Sql("""
        SELECT month, currency, account, day, sum(billed) AS billed, sum(effective) AS effective
        FROM placed_costs WHERE day IS NOT NULL GROUP BY ALL
    """),
    "kinds": Sql("""
        SELECT month, currency, account, kind, sum(billed) AS billed, sum(effective) AS effective
        FROM placed_costs WHERE kind IS NOT NULL GROUP BY ALL
    """),
    "savings": Sql("""
        SELECT month, currency, account, sum(list) AS list, sum(contracted) AS contracted,
               sum(usage) AS effective
        FROM placed_usage GROUP BY ALL
    """),
    "commitments": Sql(f"""
        WITH sizes AS (
            SELECT currency, commitment, count(*) AS rows, sum(used + unused) AS size,
                   try_cast(left(max(commitment_end), 10) AS DATE) AS last_day
            FROM placed_usage WHERE commitment IS NOT NULL GROUP BY ALL
        ), ranked AS (
            SELECT currency, commitment, last_day,
                row_number() OVER largest_first <= {MOST_COMMITMENTS}
                AND sum(rows) OVER largest_first <= {MOST_COMMITMENT_ROWS} AS is_listed
            FROM sizes
            WINDOW largest_first AS (
                PARTITION BY currency ORDER BY size DESC, commitment ROWS UNBOUNDED PRECEDING
            )
        )
        SELECT month, currency, account, if(is_listed, commitment, 'other') AS id,
               if(is_listed, commitment_type, NULL) AS type,
               sum(used) AS used, sum(unused) AS unused,
               CAST(any_value(if(is_listed, last_day, NULL)) AS VARCHAR) AS ends
        FROM placed_usage JOIN ranked USING (currency, commitment) GROUP BY ALL
    """),
    "tags": Sql("""
        SELECT month, currency, account, sum(tagged) AS tagged, sum(untagged) AS untagged
        FROM placed_usage GROUP BY ALL
    """),
    "tag_keys": Sql(f"""
        WITH largest AS (
            SELECT currency, key FROM placed_tag_keys GROUP BY currency, key
            QUALIFY row_number() OVER (
                PARTITION BY currency ORDER BY sum(tagged) DESC, key
            ) <= {MOST_TAG_KEYS}
        )
        SELECT currency, account, key, tagged
        FROM placed_tag_keys SEMI JOIN largest USING (currency, key)
    """),
    "untagged_resources": Sql(f"""
        SELECT currency, account, service, coalesce(nullif(name, ''), resource) AS resource,
               untagged AS effective
        FROM placed_resources WHERE month = $month AND untagged <> 0
        QUALIFY row_number() OVER (
            PARTITION BY currency ORDER BY untagged DESC, placed_resources.resource
        ) <= {MOST_UNTAGGED}
    """),
    # Each resource has its rows of both months.
    "resources": Sql(f"""
        WITH sizes AS (
            SELECT currency, account, service, resource,
                   sum(greatest(abs(billed), abs(effective))) AS size
            FROM placed_resources GROUP BY currency, account, service, resource
            QUALIFY row_number() OVER (
                PARTITION BY currency, account, service ORDER BY size DESC, resource
            ) <= {MOST_RESOURCES_OF_A_SERVICE}
        ), largest AS (
            FROM sizes
            QUALIFY row_number() OVER (
                PARTITION BY currency ORDER BY size DESC, resource
            ) <= {MOST_RESOURCES}
        )
        SELECT month, currency, account, service, coalesce(nullif(name, ''), resource) AS resource,
               detail, billed, effective
        FROM placed_resources SEMI JOIN largest USING (currency, account, service, resource)
    """),
}
_RESOURCES = """
SELECT count(*) FROM placed_resources WHERE month = $month AND (billed <> 0 OR effective <> 0)
"""


def add_amounts(connection: DuckDBPyConnection, first_day: date, document: Document) -> None:
    """Fill the document's TABLES of amounts with decimals; rows whose amounts are 0 are left out.

    Each table of `document.TABLES` becomes a dictionary from column to list of values.
    `resources` of the document's `left_out` gets how many resources of its `month` are not listed.
    Needs the tables of `sums.py` and `add_lines`, and a document that has `month`, `currencies` and
    `left_out`. `first_day` is that of the document's first month. Creates views in the connection,
    so it can be called once.
    """
    currencies = Sql(f"[{', '.join(map(literal, document['currencies']))}]")
    for view, sums in _PLACED_SUMS.items():
        connection.execute(
            _PLACED.format(
                view=view, sums=sums, first_day=literal(str(first_day)), currencies=currencies
            )
        )
    for table, columns in TABLES.items():
        document[table] = _table(connection, _QUERIES[table], columns, document["month"])
    ((resources,),) = connection.execute(_RESOURCES, {"month": document["month"]}).fetchall()
    shown = document["resources"]["month"].count(document["month"])
    document["left_out"]["resources"] = resources - shown


def _table(
    connection: DuckDBPyConnection, query: Sql, columns: Sequence[str], month: int
) -> dict[str, list[Any]]:
    names = Sql(", ").join(map(quoted, columns))
    filled = Sql(" OR ").join(Sql(f"{quoted(name)} <> 0") for name in columns if name in AMOUNTS)
    # Sorted, so that a page compresses well.
    order = Sql(", ").join(
        Sql(f"{quoted(name)} NULLS FIRST")
        for name in sorted(columns, key=lambda name: name == "month")
        if name not in AMOUNTS
    )
    parameters = {"month": month} if "$month" in query else {}
    rows = connection.execute(
        f"SELECT {names} FROM ({query}) WHERE {filled} ORDER BY {order}", parameters
    ).fetchall()
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return {name: list(column) for name, column in zip(columns, values, strict=True)}


def scaled_document(document: Document) -> Document:
    """Return a copy of a document with its decimals as whole numbers, multiplied by 10^`scale`.

    The key `scale` gets the smallest scale with which all of them are whole. No decimal may have
    more than 18 decimal places: further ones are cut off. Of the whole numbers made from decimals,
    those from 2^53 on, also negative ones, become text.
    """
    divisor = gcd(10**_DECIMALS, *map(_units, _decimals(document)))
    zeros = next(n for n in range(_DECIMALS, -1, -1) if divisor % 10**n == 0)

    def with_units(value: Any) -> Any:
        match value:
            case dict():
                return {name: with_units(part) for name, part in value.items()}
            case list():
                return [with_units(part) for part in value]
            case Decimal():
                return _number(_units(value) // 10**zeros)
        return value

    return {**with_units(document), "scale": _DECIMALS - zeros}


def _decimals(value: Any) -> Iterator[Decimal]:
    """Yield the decimals in a document, at any depth."""
    if isinstance(value, Decimal):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _decimals(part)


def _units(amount: Decimal) -> int:
    """Return the amount in units of its last decimal."""
    return int(amount.scaleb(_DECIMALS, EXACT))


def _number(units: int) -> int | str:
    return units if abs(units) < _LARGEST_NUMBER else str(units)
