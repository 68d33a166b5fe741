"""What can be wrong with a bill, each said in one line: what, where, and what to do."""

import re
from collections.abc import Sequence
from reprlib import Repr


class BillError(Exception):
    """Something about a bill that no retry cures; the month stays as it was."""


class ManifestMissing(BillError):
    """The vendor has delivered no manifest for the month."""


class ManifestInvalid(BillError):
    """The manifest is there, but does not say what a manifest must say. `etag` tells whether it was
    written anew since."""

    etag = ""


class FileInvalid(BillError):
    """A file of the month is missing, cut short, changed meanwhile, or not what it should be."""


class CellInvalid(BillError):
    """A cell cannot be kept exactly as the type of its column, whose `header` the file has."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(message)
        self.header = header


class StageMissing(BillError):
    """An earlier stage has not made what this one reads."""


class LedgerDamaged(BillError):
    """A table of the ledger is not what this or any earlier layout made."""


class ReconciliationError(BillError):
    """What a stage wrote differs from what was counted in the vendor's files, or the stage before
    holds another version by now; nothing was kept."""


CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_SHORT_REPR = Repr()
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 160


_MAX_CHARACTERS = 1000


def escaped(text: str) -> str:
    """Return the text with everything in it escaped, as Python would, that a terminal or a browser
    acts on instead of showing it: control characters, line ends, marks that turn its direction."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(text: str) -> str:
    """Return the text escaped, and cut in its middle where it is longer than anybody reads."""
    if len(text) <= _MAX_CHARACTERS:
        return escaped(text)
    half = _MAX_CHARACTERS // 2
    marker = f"… {len(text) - 2 * half:,} characters are not shown …"
    return escaped(text[:half]) + marker + escaped(text[-half:])


def excerpt(value: object) -> str:
    """What a stranger wrote, fit for one line: in quotes, escaped, and cut in its middle."""
    return _SHORT_REPR.repr(value)


def excerpts(names: Sequence[str], limit: int) -> str:
    """The first of what a stranger named, in one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(excerpt(name)[1:-1] for name in names[:limit]) + more


def first_line(error: BaseException) -> str:
    """What a library says of its error, without the advice and the context that follow."""
    return str(error).strip().partition("\n")[0]
