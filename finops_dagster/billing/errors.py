"""Errors about a bill, each with a message of one line, and quoting for messages."""

import re
from collections.abc import Iterator, Sequence
from reprlib import Repr


class BillError(Exception):
    """A permanent error about a bill, with a message of one line."""


class ManifestMissing(BillError):
    """The vendor has delivered no manifest for the month."""


class ManifestInvalid(BillError):
    """A manifest cannot be read. `etag` is that of the manifest's object; empty if unknown."""

    etag = ""


class FileInvalid(BillError):
    """A file of the month is missing, cut short, damaged, or changed while it was read."""


class CellInvalid(BillError):
    """A cell cannot be stored exactly in its column. `header` is the vendor's name of it."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(message)
        self.header = header


class StageMissing(BillError):
    """The output of an earlier stage is missing."""


class LedgerDamaged(BillError):
    """A table of the ledger has columns or types that no release gave it."""


class ReconciliationError(BillError):
    """Measured totals differ from counted ones, rows are misdated, or another version is stored."""


CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_SHORT_REPR = Repr()
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 160
_MAX_CHARACTERS = 1000


def escaped(text: str) -> str:
    """Return the text with every unprintable character escaped, as in a Python string.

    A terminal or a browser acts on control characters, line ends and direction marks instead of
    showing them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(text: str) -> str:
    """Return the text escaped; if it has more than 1,000 characters, without its middle.

    The first and the last 500 characters stay. A note between them has the number of the others.
    """
    if len(text) <= _MAX_CHARACTERS:
        return escaped(text)
    half = _MAX_CHARACTERS // 2
    marker = f"… {len(text) - 2 * half:,} characters are not shown …"
    return escaped(text[:half]) + marker + escaped(text[-half:])


def excerpt(value: object) -> str:
    """Return an untrusted value for a message: a text in quotes, escaped, cut to 160 characters.

    A longer text loses its middle. Any other value is shown as by `repr`, and shortened too.
    """
    return _SHORT_REPR.repr(value)


def excerpts(names: Sequence[str], limit: int) -> str:
    """Return the first `limit` untrusted names with commas, without quotes, as `a, b and 3 more`.

    Each name is escaped and cut as by `excerpt`. Empty without names.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(excerpt(name)[1:-1] for name in names[:limit]) + more


def count_text(count: int, noun: str, sign: str = "") -> str:
    """Return a number with its noun, such as `1 month` or `2,000 months`.

    If `sign` is `+`, every number has a sign: `+2 rows`. The plural is always the noun and an `s`.
    """
    return f"{count:{sign},} {noun}{'' if abs(count) == 1 else 's'}"


def reprocess_advice(export: str, month: object) -> str:
    """Return the advice to run the command that reads the month's files again from the vendor.

    It is the end of a message, without the `; ` before it. `month` becomes text, such as 2026-01.
    """
    return f"run finops state reprocess {export} {month} to read the vendor's files again"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; empty if it has no message.

    Clients of databases and clouds add hints in the lines after it.
    """
    return str(error).strip().partition("\n")[0]


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then the one that caused it or that it hid, and so on to the first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
