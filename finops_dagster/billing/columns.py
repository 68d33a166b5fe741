"""Which column of the table a column of a file becomes: its name, stable for ever, and its type."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NewType, Protocol

ADDED_COLUMNS = ("billing_month", "manifest_id")
_RESERVED_NAMES = (*ADDED_COLUMNS, "")

Sql = NewType("Sql", str)
"""A text that may be put into a statement: nothing in it was given from outside unquoted, which
finops_dagster_tests/test_sql_is_quoted.py holds."""


class SqlType(StrEnum):
    """The types that a column of a bill can have, whichever kind of file it came in."""

    MONEY = "DECIMAL(38,18)"
    TIME = "TIMESTAMP"
    TEXT = "VARCHAR"
    TEXT_MAP = "MAP(VARCHAR, VARCHAR)"
    MONEY_MAP = "MAP(VARCHAR, DECIMAL(38,18))"

    @property
    def is_money(self) -> bool:
        """Whether it holds amounts, which never become text."""
        return self in (SqlType.MONEY, SqlType.MONEY_MAP)


def merged_type(before: str, given: str) -> str | None:
    """The type of a column where one month gives it another, for a warehouse that makes no amounts
    of text: text takes anything, a time or a map becomes text, and None is for what would make text
    of amounts, or amounts of what are none."""
    if before in (given, SqlType.TEXT):
        return before
    both_become_text = {before, given} <= {SqlType.TIME, SqlType.TEXT_MAP, SqlType.TEXT}
    return SqlType.TEXT if both_become_text else None


class Naming(Protocol):
    """How a format's headers become names of columns."""

    def column(self, header: str) -> str:
        """The name that the header asks for, in any month and in any kind of file."""
        ...

    def is_user_defined(self, header: str) -> bool:
        """Whether the vendor's customer chose the name, so that letter case tells two apart."""
        ...

    def alias_of(self, header: str, known: Collection[str]) -> str | None:
        """The one of `known` headers under which other kinds of files hold the same column."""
        ...


def flat_name(header: str) -> str:
    """Lower case, every character but a-z and 0-9 an underscore: `lineItem/UnblendedCost` becomes
    `lineitem_unblendedcost`, a name that every warehouse takes unquoted."""
    return re.sub(r"[^a-z0-9]", "_", header.lower())


def name_columns(
    headers: Iterable[str], known: Mapping[str, str], naming: Naming
) -> dict[str, str]:
    """Give each header its column name; a name once given (`known`) is never changed.

    Most headers get the name that they ask for. Tag keys are free text, and two of them can ask for
    one name (`user:team`, `user:Team`, `user_team`): the plain name stays with the header that has
    it already, or else goes to the one that needs the least rewriting, and every other gets a
    short hash of its own exact spelling, which does not depend on the order of anything. Headers
    that the vendor chose differ in case only by accident (`SavingsPlanARN`, `SavingsPlanArn`) and
    share a column, unless one file has both. Names that differ in case alone are one name, as they
    are to DuckDB and to most warehouses.
    """
    headers = list(headers)
    known = {**known, **_names_by_alias(headers, known, naming)}
    by_name: dict[str, list[str]] = defaultdict(list)
    for header in headers:
        by_name[naming.column(header)].append(header)
    taken_names = {*map(str.lower, known.values()), *_RESERVED_NAMES}
    used = {*taken_names, *by_name}
    names: dict[str, str] = {}
    for name, group in by_name.items():
        if len(group) == 1 and not naming.is_user_defined(group[0]) and name not in _RESERVED_NAMES:
            names[group[0]] = known.get(group[0], name)
            continue
        given = {header: known.get(header, name) for header in group}
        unnamed = [header for header in group if header not in known]
        owners = [header for header in group if header in known and known[header].lower() == name]
        candidates = owners or ([] if name in taken_names else unnamed)
        owner = min(candidates, key=_distance_from_flat, default=None)
        for header in group:
            if given[header].lower() == name and header != owner:
                given[header] = _hashed_name(header, name, used)
            names[header] = given[header]
            used.add(given[header].lower())
    return names


def case_distance(one: str, other: str) -> int:
    """Return in how many letters and digits two spellings of one name differ."""
    letters, others = (re.sub(r"[^A-Za-z0-9]", "", header) for header in (one, other))
    return sum(a != b for a, b in zip(letters, others, strict=False))


def _names_by_alias(
    headers: Collection[str], known: Mapping[str, str], naming: Naming
) -> dict[str, str]:
    """The names of columns that the table knows under the headers of another kind of file; where
    several new headers would take one name, the nearest in letter case does."""
    absent = known.keys() - set(headers)
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for header in headers:
        other = None if header in known else naming.alias_of(header, absent)
        if other is not None:
            found[known[other]].append((case_distance(header, other), header))
    return {min(group)[1]: name for name, group in found.items()}


def _distance_from_flat(header: str) -> tuple[int, str]:
    changed = sum(a != b for a, b in zip(header, flat_name(header), strict=False))
    return changed, header


def name_within(max_bytes: int, name: str) -> str:
    """The name where a warehouse can hold it, else its beginning and a hash of the whole, which is
    long enough that no two names become one."""
    encoded = name.encode()
    if len(encoded) <= max_bytes:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    beginning = encoded[: max_bytes - len(digest) - 1].decode(errors="ignore")
    return f"{beginning}_{digest}"


def _hashed_name(header: str, name: str, used: Collection[str]) -> str:
    """The name with a hash of the header, short where nobody has chosen a header that asks for
    just this."""
    digest = hashlib.sha256(header.encode()).hexdigest()
    names = (f"{name}_{digest[:digits]}" for digits in (8, 16, 32, 64))
    return next(name for name in names if name not in used)


def quoted(name: str) -> Sql:
    """A name as an SQL identifier."""
    return Sql('"' + name.replace('"', '""') + '"')


def literal(text: str) -> Sql:
    """A text as an SQL literal, for the few places that take no bound parameter."""
    return Sql("'" + text.replace("'", "''") + "'")


def file_literal(path: Path) -> Sql:
    """The path of one file as an SQL literal; without more, `*`, `?` and `[` would be patterns."""
    return literal(glob.escape(str(path)))


def files_literal(folder: Path, pattern: str) -> Sql:
    """The files below a folder whose paths in it fit the pattern, as an SQL literal."""
    return literal(f"{glob.escape(str(folder))}/{pattern}")
