"""The accounts file: a CSV file in which people write the names and owners of accounts."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import StringIO
from itertools import pairwise
from pathlib import Path

from finops_dagster.billing.errors import BillError, excerpt
from finops_dagster.settings_table import LocalPath, SettingsTable

_TEXT_COLUMNS = ("name", "owner", "environment", "cost_centre")
# Spellings of the headings, without case, blanks and signs.
_SPELLINGS = {
    "account_id": ("accountid", "id", "subaccountid", "billingaccountid"),
    "name": ("name", "accountname"),
    "owner": ("owner", "accountowner"),
    "environment": ("environment", "env", "accountenvironment"),
    "cost_centre": ("costcentre", "costcenter", "accountcostcentre", "accountcostcenter"),
    "valid_from": ("validfrom",),
    "valid_to": ("validto",),
}
_COLUMNS = {spelling: column for column, all_ in _SPELLINGS.items() for spelling in all_}
# A column of the file must not have this name: `focus_named` already has AccountListed.
_LISTED = "listed"
_AWS_DIGITS = 12
_AZURE_PATH = "/subscriptions/"
# How spreadsheets write a long number: 1.23457E+11, 123456789012.0.
_SPREADSHEET_NUMBER = re.compile(r"\d+([.,]\d+)?E\+?\d+|\d+[.,]0+", re.I)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class AccountsSettings(SettingsTable):
    """The settings of the accounts' names: a CSV file, relative to the working directory.

    Without a file, accounts have the names of the bill, and no owners.
    """

    file: LocalPath | None = None


@dataclass(frozen=True)
class AccountLine:
    """A line of the file: what is true of an account from one day to another, both included.

    `number` is the line's number in the file. `texts` has the filled cells of all other columns, by
    `name`, `owner`, `environment`, `cost_centre`, or the heading as it is written. `valid_from` or
    `valid_to` is None where the line has no first or no last day.
    """

    number: int
    account_id: str
    texts: Mapping[str, str]
    valid_from: date | None
    valid_to: date | None

    @property
    def key(self) -> str:
        """The id for comparisons: in lower case, and without `/subscriptions/`, Azure's path."""
        return self.account_id.lower().removeprefix(_AZURE_PATH)

    @property
    def spellings(self) -> set[str]:
        """The account ids that match this line: its id as written, and as charges may have it.

        Charges have Azure's ids in lower case, with the path `/subscriptions/` before them.
        """
        return {self.account_id, self.key, f"{_AZURE_PATH}{self.key}"}


@dataclass(frozen=True)
class AccountsFile:
    """The lines of the file; `text_columns` are all columns but the id and the validity.

    They begin with `name`, `owner`, `environment` and `cost_centre`, even if the file lacks them.
    """

    text_columns: tuple[str, ...] = _TEXT_COLUMNS
    lines: tuple[AccountLine, ...] = ()

    def ids_with_lost_zeros(self, bill_ids: Iterable[str | None]) -> dict[int, str]:
        """Return {line number: id in the bill} of the lines whose ids have lost leading zeros.

        A spreadsheet that takes ids for numbers drops the zeros. `bill_ids` are the ids of all
        accounts of the bill.
        """
        ids = set(filter(None, bill_ids))
        stripped = {id_.lstrip("0"): id_ for id_ in ids if id_.isdigit() and id_.startswith("0")}
        return {
            line.number: stripped[line.account_id.lstrip("0")]
            for line in self.lines
            if line.account_id not in ids and line.account_id.lstrip("0") in stripped
        }

    def lines_with_short_ids(self) -> list[AccountLine]:
        """Return the lines whose ids may be those of AWS without their leading zeros.

        They have fewer than 12 digits, and another line has an id of 12 digits.
        """
        digits = [line for line in self.lines if line.account_id.isdigit()]
        if not any(len(line.account_id) == _AWS_DIGITS for line in digits):
            return []
        return [line for line in digits if len(line.account_id) < _AWS_DIGITS]


def heading_key(heading: str) -> str:
    """Return the name of the column that a heading of the file means, such as `cost_centre`.

    For any other heading, its letters and digits in lower case; a heading without any is returned
    unchanged.
    """
    spelling = re.sub(r"[\W_]", "", heading.lower())
    return _COLUMNS.get(spelling, spelling or heading)


def read_accounts(file: Path | None) -> AccountsFile:
    """Read the accounts file; if `file` is None, return an AccountsFile without lines.

    Raises BillError, which names the file and the line if it has one, if the file is missing or not
    valid, or if two of its lines are for the same account and the same day.
    """
    if file is None:
        return AccountsFile()
    rows = _rows(file)
    number, headings = next(rows, (1, list[str]()))
    columns = _columns(_place(file, number), headings)
    lines = tuple(_line(_place(file, number), number, columns, row) for number, row in rows)
    _refuse_overlaps(file, lines)
    more = [column for column in columns if column and column not in _SPELLINGS]
    return AccountsFile((*_TEXT_COLUMNS, *more), lines)


def _place(file: Path, number: int) -> str:
    return f"{file}, line {number}"


def read_accounts_text(file: Path) -> str:
    """Return the text of the accounts file, without a byte order mark.

    Raises BillError if it cannot be read, or is not in UTF-8. Its cells are not checked.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BillError(
            f"{file}, which accounts.file names, cannot be read: {error.strerror}; "
            "write it, fill it by finops accounts pull, or allow reading it"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BillError(
            f"{_place(file, line)}: the line is not in UTF-8; save the file as CSV UTF-8"
        ) from error


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its first line."""
    reader = csv.reader(StringIO(read_accounts_text(file), newline=""), strict=True)
    number = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise BillError(
            f"{_place(file, number)}: the line is not CSV: {error}; put a text that has a comma "
            'or a quote in quotes, and write a quote in it as ""'
        ) from error


def _columns(place: str, headings: Sequence[str]) -> list[str]:
    """Return the column of each heading; empty where there is no heading."""
    columns = [key if (key := heading_key(text)) in _SPELLINGS else text for text in headings]
    keys = [heading_key(text) for text in headings if text]
    if "account_id" not in keys:
        for sign, name in {";": "semicolons", "\t": "tabs"}.items():
            if sign in "".join(headings):
                raise BillError(
                    f"{place}: the cells are separated by {name}; save the file with commas"
                )
        raise BillError(f"{place}: no column is called account_id; rename the column of the ids")
    for heading, key in zip(filter(None, headings), keys, strict=True):
        if key == _LISTED:
            raise BillError(
                f"{place}: focus_named has a column AccountListed already; rename the column "
                f"{excerpt(heading)}"
            )
        if keys.count(key) > 1:
            raise BillError(
                f"{place}: two columns are {excerpt(key)}, one of them {excerpt(heading)}; "
                "rename or delete one"
            )
    return columns


def _line(place: str, number: int, columns: Sequence[str], row: Sequence[str]) -> AccountLine:
    if any(row[len(columns) :]):
        raise BillError(
            f"{place}: the line has {len(row)} cells, but the first line has {len(columns)} "
            "headings; put a text that has a comma in quotes"
        )
    filled = [(column, cell) for column, cell in zip(columns, row, strict=False) if cell]
    for column, cell in filled:
        if not column:
            raise BillError(f"{place}: {excerpt(cell)} is in a column without a heading; name it")
    texts = dict(filled)
    account_id = texts.pop("account_id", "")
    if not account_id:
        raise BillError(f"{place}: the line has no account_id; write it, or delete the line")
    if _SPREADSHEET_NUMBER.fullmatch(account_id):
        raise BillError(
            f"{place}: account_id {excerpt(account_id)} was changed by a spreadsheet that took it "
            "for a number; format the column as text, and enter the id again"
        )
    first, last = (_day(place, name, texts.pop(name, "")) for name in ("valid_from", "valid_to"))
    if first and last and last < first:
        raise BillError(f"{place}: valid_to {last} is before valid_from {first}; exchange them")
    return AccountLine(number, account_id, texts, first, last)


def _day(place: str, column: str, cell: str) -> date | None:
    if not cell:
        return None
    try:
        # `fromisoformat` also takes 20240201 and 2024-W05-4.
        return date.fromisoformat(cell if _DATE.fullmatch(cell) else "")
    except ValueError:
        raise BillError(
            f"{place}: {column} {excerpt(cell)} is not a date; write it as 2024-02-01"
        ) from None


def _refuse_overlaps(file: Path, lines: Sequence[AccountLine]) -> None:
    """Raise BillError if two lines of an account are valid on the same day."""
    by_account: dict[str, list[AccountLine]] = defaultdict(list)
    for line in lines:
        by_account[line.key].append(line)
    for of_account in by_account.values():
        of_account.sort(key=lambda line: line.valid_from or date.min)
        for earlier, later in pairwise(of_account):
            if (later.valid_from or date.min) <= (earlier.valid_to or date.max):
                first, second = sorted((earlier.number, later.number))
                raise BillError(
                    f"{_place(file, second)}: account {excerpt(later.account_id)} is valid on the "
                    f"same days as in line {first}; delete one of the lines, or set valid_from and "
                    "valid_to"
                )
