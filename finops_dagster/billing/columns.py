"""Names and types of the billing table's columns, and quoting for SQL."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NewType, Protocol

# The two columns that every billing table has before the vendor's: a DATE, the first day of the
# month, and the version id.
ADDED_COLUMNS = ("billing_month", "manifest_id")
_RESERVED_NAMES = (*ADDED_COLUMNS, "")

Sql = NewType("Sql", str)
"""SQL that may be executed: every name and value in it is quoted or written in this code.

mypy and `test_sql_is_quoted.py` refuse statements that are made of anything else.
"""


class SqlType(StrEnum):
    """The types of the billing table's columns, whatever kind of file they come from.

    `MONEY` and `MONEY_MAP` are the types of all numbers, of quantities too.
    """

    MONEY = "DECIMAL(38,18)"
    TIME = "TIMESTAMP"
    TEXT = "VARCHAR"
    TEXT_MAP = "MAP(VARCHAR, VARCHAR)"
    MONEY_MAP = "MAP(VARCHAR, DECIMAL(38,18))"

    @property
    def is_numeric(self) -> bool:
        """Whether cells are numbers or maps of numbers; such a column never becomes text."""
        return self in (SqlType.MONEY, SqlType.MONEY_MAP)


def merged_type(table_type: str, month_type: str) -> str | None:
    """Return the type that a column of a warehouse's table needs to hold a month's column as well.

    Both are DuckDB's types, as in `SqlType`. Equal types stay, and a text column takes every type.
    Times, text and text maps together become text. None for any other pair, such as a column of
    numbers and a month with text.
    """
    if table_type in (month_type, SqlType.TEXT):
        return table_type
    both_become_text = {table_type, month_type} <= {SqlType.TIME, SqlType.TEXT_MAP, SqlType.TEXT}
    return SqlType.TEXT if both_become_text else None


class Naming(Protocol):
    """The part of a format that turns headers into column names."""

    def column(self, header: str) -> str:
        """Return the preferred column name of a header, the same in CSV and in Parquet.

        It must be in lower case.
        """
        ...

    def is_user_defined(self, header: str) -> bool:
        """Return whether a customer chose the header; then other letter case is another column."""
        ...

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:
        """Return which known header is the same column in another kind of file, or None."""
        ...


def flat_name(header: str) -> str:
    """Return the header in lower case, with `_` for each character except a-z and 0-9.

    `lineItem/UnblendedCost` becomes `lineitem_unblendedcost`, which no warehouse has to quote.
    """
    return re.sub(r"[^a-z0-9]", "_", header.lower())


def name_columns(
    headers: Iterable[str], known_names: Mapping[str, str], naming: Naming
) -> dict[str, str]:
    """Return the column name of each header of a file, by header.

    `known_names` are the column names of all headers of earlier files. A known header keeps its
    name for ever. A new header takes the name of its alias: a known header, absent from this file,
    that `naming` knows as the same column. Any other new header gets the name that it prefers.

    Customers choose tag keys freely, so several headers can prefer one name (`user:team`,
    `user:Team`, `user_team`). The header that has the name already keeps it; otherwise the header
    that needs the fewest changes gets it. Each of the others gets the name with a short hash of its
    own spelling, whatever the order of the headers. So does a header that prefers an empty name, or
    one of `ADDED_COLUMNS`. Headers that the vendor chose and that differ in case alone
    (`SavingsPlanARN`, `SavingsPlanArn`) share a column, unless one file has both.

    Names that differ in case alone count as one, as in DuckDB and in most warehouses.
    """
    headers = list(headers)
    known_names = {**known_names, **_names_by_alias(headers, known_names, naming)}
    by_name: dict[str, list[str]] = defaultdict(list)
    for header in headers:
        by_name[naming.column(header)].append(header)
    taken_names = {*map(str.lower, known_names.values()), *_RESERVED_NAMES}
    used = {*taken_names, *by_name}
    names: dict[str, str] = {}
    for name, group in by_name.items():
        if len(group) == 1 and not naming.is_user_defined(group[0]) and name not in _RESERVED_NAMES:
            names[group[0]] = known_names.get(group[0], name)
            continue
        group_names = {header: known_names.get(header, name) for header in group}
        unnamed = [header for header in group if header not in known_names]
        owners = [
            header
            for header in group
            if header in known_names and known_names[header].lower() == name
        ]
        candidates = owners or ([] if name in taken_names else unnamed)
        owner = min(candidates, key=_distance_from_flat, default=None)
        for header in group:
            if group_names[header].lower() == name and header != owner:
                group_names[header] = _hashed_name(header, name, used)
            names[header] = group_names[header]
            used.add(group_names[header].lower())
    return names


def case_distance(left: str, right: str) -> int:
    """Return in how many letters and digits two spellings of a name differ, position by position.

    Characters such as `_` and `/` are skipped: `SavingsPlanArn` and `savings_plan_arn` differ in 3.
    The extra characters of a longer name are not counted.
    """
    left_letters, right_letters = (re.sub(r"[^A-Za-z0-9]", "", text) for text in (left, right))
    return sum(a != b for a, b in zip(left_letters, right_letters, strict=False))


def _names_by_alias(
    headers: Collection[str], known_names: Mapping[str, str], naming: Naming
) -> dict[str, str]:
    """Return the names that new headers take over from known headers of another kind of file.

    Where several new headers are aliases of one column, the nearest in letter case gets its name.
    """
    absent = known_names.keys() - set(headers)
    aliases: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for header in headers:
        alias = None if header in known_names else naming.alias_of(header, absent)
        if alias is not None:
            aliases[known_names[alias]].append((case_distance(header, alias), header))
    return {min(group)[1]: name for name, group in aliases.items()}


def _distance_from_flat(header: str) -> tuple[int, str]:
    changed = sum(a != b for a, b in zip(header, flat_name(header), strict=False))
    return changed, header


def shortened_name(max_bytes: int, name: str) -> str:
    """Return the name in at most `max_bytes` bytes of UTF-8; a longer one ends in a hash.

    `max_bytes` is at least 17. The hash is of the full name and has 64 bits, so that two names do
    not become one.
    """
    encoded = name.encode()
    if len(encoded) <= max_bytes:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    beginning = encoded[: max_bytes - len(digest) - 1].decode(errors="ignore")
    return f"{beginning}_{digest}"


def _hashed_name(header: str, name: str, used: Collection[str]) -> str:
    """Return the name with the shortest prefix of the header's hash that makes it unused."""
    digest = hashlib.sha256(header.encode()).hexdigest()
    names = (f"{name}_{digest[:digits]}" for digits in (8, 16, 32, 64))
    return next(name for name in names if name not in used)


def quoted(name: str) -> Sql:
    """Return a name as an SQL identifier in double quotes, as DuckDB reads it.

    Other warehouses may quote in another way: use their dialect's `quoted`.
    """
    return Sql('"' + name.replace('"', '""') + '"')


def literal(text: str) -> Sql:
    """Return a text as an SQL literal, for statements that take no bound parameter.

    It is for DuckDB, where a backslash is a plain character; in some warehouses it is an escape.
    """
    return Sql("'" + text.replace("'", "''") + "'")


def file_literal(path: Path) -> Sql:
    """Return the path of one file as an SQL literal, such as for `read_parquet` of DuckDB.

    It is for statements that read a file, where `*`, `?` and `[` would be wildcards: they are
    escaped. For a file to write, use `literal`.
    """
    return literal(glob.escape(str(path)))


def glob_literal(folder: Path, pattern: str) -> Sql:
    """Return a glob pattern below a folder as an SQL literal, such as for `read_parquet` of DuckDB.

    Only `pattern` can have wildcards: `*`, `?` and `[` in `folder` are plain characters.
    """
    return literal(f"{glob.escape(str(folder))}/{pattern}")
