"""The accounts, services and regions of a report: the largest ones, and a line for the others.

A line stands for one or several groups of `cost_sums`. The temporary tables `account_lines`,
`service_lines` and `region_lines` have the position of the line of each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.reports.document import Document

MOST_ACCOUNTS, MOST_SERVICES, MOST_REGIONS = 300, 60, 40
MOST_BYTES = 1_000_000
"""The most bytes of a page that the costs of its largest accounts may take."""

# Groups are ranked by the larger one of their two costs. As currencies cannot be compared, each has
# its own ranks, and the best one counts.
_RANKED = """
WITH sums AS (
    SELECT {keys}, currency, greatest(abs(sum(billed)), abs(sum(effective))) AS size
    FROM cost_sums WHERE {condition} GROUP BY ALL
), ranks AS (
    SELECT *, row_number() OVER (PARTITION BY currency ORDER BY size DESC, {keys}) AS rank
    FROM sums
)
SELECT {keys} FROM ranks GROUP BY {keys} ORDER BY min(rank), {keys}
"""
# Estimated size in the page: 0.55 bytes a digit plus 3 a row, after compression. The effective cost
# is written as its difference from the billed cost.
_BYTES = """
SELECT provider, account, own_line, billed_line,
       sum(3 + 0.55 * (digits(billed) + digits(effective - billed)))
FROM cost_sums GROUP BY ALL
"""
_DIGITS = """
CREATE TEMP MACRO digits(amount) AS
length(rtrim(replace(CAST(abs(amount) AS VARCHAR), '.', ''), '0'))
"""
# The line of the charge's own account in the accounts file comes before that of the account that
# is billed for it.
_ACCOUNTS = """
WITH names AS (
    SELECT provider, account, arg_max(account_name, month) AS name FROM usage_sums GROUP BY ALL
)
SELECT provider, account, own_line, billed_line,
       own.spelling IS NOT NULL OR coalesce(billed.spelling = account, false) AS listed,
       coalesce(
           own.AccountName, if(billed.spelling = account, billed.AccountName, NULL), names.name,
           account
       ) AS name,
       coalesce(own.AccountOwner, billed.AccountOwner) AS owner,
       coalesce(own.AccountEnvironment, billed.AccountEnvironment) AS environment,
       coalesce(own.AccountCostCentre, billed.AccountCostCentre) AS cost_centre
FROM (SELECT DISTINCT provider, account, own_line, billed_line FROM usage_sums)
JOIN names USING (provider, account)
LEFT JOIN account_spellings AS own ON own.rowid = own_line
LEFT JOIN account_spellings AS billed ON billed.rowid = billed_line
"""

Values = tuple[Any, ...]


@dataclass(frozen=True)
class LineGroup:
    """A group of `cost_sums`: the values of its columns, and those of its line in the report.

    `keys` are the values of the columns. Groups with equal `line` values are in one line of the
    report. A small line may be joined with all small lines that have the same `shared` values.
    """

    keys: Values
    line: Values
    shared: Values


@dataclass(frozen=True)
class Lines:
    """The lines of a list: `single` ones, then `shared` ones that each stand for several lines.

    A shared line has its values, and the number of lines that it stands for.
    """

    single: Sequence[Values]
    shared: Sequence[tuple[Values, int]]
    positions: Sequence[int]
    """The position of each group's line, in the order of the groups."""

    @classmethod
    def of(cls, groups: Sequence[LineGroup], most: int) -> Lines:
        """Return the lines of groups, which must be sorted, the largest first.

        The first `most` lines are single. A later line is single too if no other later one has the
        same `shared` values.
        """
        lines = list(dict.fromkeys(group.line for group in groups))
        small_lines: dict[Values, list[Values]] = {}  # by the values of the line that they share
        shared_of = {group.line: group.shared for group in groups}
        for line in lines[most:]:
            small_lines.setdefault(shared_of[line], []).append(line)
        # A small line that no other would share keeps its name.
        unshared = {small[0] for small in small_lines.values() if len(small) == 1}
        single = [*lines[:most], *(line for line in lines[most:] if line in unshared)]
        shared = [(values, len(small)) for values, small in small_lines.items() if len(small) > 1]
        position = {line: number for number, line in enumerate(single)}
        for number, (values, _) in enumerate(shared, len(single)):
            position |= dict.fromkeys(small_lines[values], number)
        return cls(single, shared, [position[group.line] for group in groups])

    @property
    def left_out(self) -> int:
        """The number of lines for which shared ones stand."""
        return sum(count for _, count in self.shared)


def add_lines(connection: DuckDBPyConnection, document: Document) -> None:
    """Fill the document's lists of accounts, services and regions, and those to which they refer.

    The lists to which they refer are `providers`, `owners` and `categories`. `left_out` gets how
    many accounts, services and regions have no line of their own. Creates the temporary tables
    `account_lines`, `service_lines` and `region_lines`. Needs the tables of
    `create_cost_and_usage_sums` and `create_account_spellings`.
    """
    accounts, services, regions = _accounts(connection), _services(connection), _regions(connection)
    document["left_out"] |= {
        "accounts": accounts.left_out,
        "services": services.left_out,
        "regions": regions.left_out,
    }
    providers = document["providers"] = _names(accounts, 0)
    owners = document["owners"] = _names(accounts, 1)
    categories = document["categories"] = _names(services, 1)
    document["accounts"] = [
        {
            "id": account,
            "name": name,
            "provider": providers.index(provider),
            "owner": None if owner is None else owners.index(owner),
            "environment": environment,
            "cost_centre": cost_centre,
            "listed": listed,
        }
        for provider, owner, cost_centre, listed, environment, account, name in _rows(accounts, 7)
    ]
    document["services"] = [
        {
            "name": name,
            "provider": providers.index(provider),
            "category": categories.index(category),
        }
        for provider, category, name in _rows(services, 3)
    ]
    document["regions"] = [
        {"name": name, "provider": providers.index(provider)}
        for provider, name in _rows(regions, 2)
    ]


def _names(lines: Lines, position: int) -> list[str]:
    """Return the different values at a position of all lines, sorted, without None."""
    values = {line[position] for line in (*lines.single, *(shared for shared, _ in lines.shared))}
    return sorted(values - {None})


def _rows(lines: Lines, width: int) -> Iterator[Values]:
    """Yield the values of each line; one that groups share has its number as its last value."""
    yield from lines.single
    for values, count in lines.shared:
        yield (*values, *[None] * (width - len(values) - 1), f"Other ({count:,})")


def _accounts(connection: DuckDBPyConnection) -> Lines:
    keys = ("provider", "account", "own_line", "billed_line")
    ranked = _ranked(connection, keys, Sql("true"))
    values = {tuple(row[:4]): tuple(row[4:]) for row in connection.execute(_ACCOUNTS).fetchall()}
    connection.execute(_DIGITS)
    byte_counts = {tuple(key): count for *key, count in connection.execute(_BYTES).fetchall()}
    groups = []
    for group in ranked:
        listed, name, owner, environment, cost_centre = values[group]
        shared = (group[0], owner, cost_centre, listed)
        groups.append(LineGroup(group, (*shared, environment, group[1], name), shared))
    fitting = sum(total <= MOST_BYTES for total in accumulate(map(byte_counts.__getitem__, ranked)))
    lines = Lines.of(groups, min(MOST_ACCOUNTS, fitting))
    if len(lines.single) + len(lines.shared) > 2 * MOST_ACCOUNTS:
        # Nearly every account has another owner: lines by owner would not save any line.
        groups = [replace(group, shared=(group.keys[0], None, None, False)) for group in groups]
        lines = Lines.of(groups, min(MOST_ACCOUNTS, fitting))
    _create_positions(connection, "account_lines", keys, groups, lines)
    return lines


def _services(connection: DuckDBPyConnection) -> Lines:
    keys = ("provider", "category", "service")
    return _named_lines(connection, keys, "service_lines", MOST_SERVICES)


def _regions(connection: DuckDBPyConnection) -> Lines:
    return _named_lines(connection, ("provider", "region"), "region_lines", MOST_REGIONS)


def _named_lines(
    connection: DuckDBPyConnection, keys: Sequence[str], table: str, most: int
) -> Lines:
    """Return the lines by keys, the last of which is the name that a shared line does not have."""
    ranked = _ranked(connection, keys, Sql(f"{quoted(keys[-1])} IS NOT NULL"))
    groups = [LineGroup(line, line, line[:-1]) for line in ranked]
    lines = Lines.of(groups, most)
    _create_positions(connection, table, keys, groups, lines)
    return lines


def _ranked(connection: DuckDBPyConnection, keys: Sequence[str], condition: Sql) -> list[Values]:
    """Return the groups of `cost_sums` by these keys, the largest first."""
    columns = Sql(", ").join(map(quoted, keys))
    return connection.execute(_RANKED.format(keys=columns, condition=condition)).fetchall()


def _create_positions(
    connection: DuckDBPyConnection,
    table: str,
    keys: Sequence[str],
    groups: Sequence[LineGroup],
    lines: Lines,
) -> None:
    """Create the table of the groups of a list, with the position of the line of each."""
    columns = [list(column) for column in zip(*(group.keys for group in groups), strict=True)]
    names = [*keys, "position"]
    values = Sql(", ").join(Sql(f"unnest(?) AS {quoted(name)}") for name in names)
    parameters = [*(columns or [[] for _ in keys]), lines.positions]
    connection.execute(f"CREATE TEMP TABLE {quoted(table)} AS SELECT {values}", parameters)
