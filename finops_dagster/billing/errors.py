"""What can be wrong with a bill, each said in one line: what, where, and what to do."""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from reprlib import Repr


class BillError(Exception):
    """Something about a bill that no retry cures; the month stays as it was."""


class ManifestMissing(BillError):
    """The vendor has delivered no manifest for the month."""


class ManifestInvalid(BillError):
    """The manifest is there, but does not say what a manifest must say."""


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
    """What a stage wrote differs from what was counted in the vendor's files; nothing was kept.

    `check` is the name of the check that found it.
    """

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_SHORTENED = Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 160


def shown(value: object) -> str:
    """What a stranger wrote, fit for one line: in quotes, escaped, and cut in its middle."""
    return _SHORTENED.repr(value)


def listed(names: Sequence[str], most: int) -> str:
    """The first of what a stranger named, in one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name)[1:-1] for name in names[:most]) + more


_DISK_PROBLEMS = {
    errno.ENOSPC: "{path} cannot be written: its disk is full; make room and run the month again",
    errno.EDQUOT: "{path} cannot be written: this user's quota is used up; make room and run the "
    "month again",
    errno.EROFS: "{path} cannot be written: its disk is read-only; let it be written, or set "
    "another folder",
    errno.EACCES: "{path} cannot be opened: this user has no permission; change its owner or mode, "
    "or set another folder",
    errno.EPERM: "{path} cannot be changed: this user has no permission; change its owner or mode, "
    "or set another folder",
    errno.ENOENT: "{path} does not exist",
    errno.ENOTDIR: "{path} is a file where a folder should be; move it away, or set another folder",
    errno.EEXIST: "{path} is a file where a folder should be; move it away, or set another folder",
    errno.EISDIR: "{path} is a folder where a file should be; move it away, or set another folder",
    errno.EIO: "{path} cannot be read or written: its disk fails",
    errno.EMFILE: "{path} cannot be opened: this process has too many files open; raise ulimit -n",
    errno.ENAMETOOLONG: "{path} cannot be made: its name is too long; set a folder whose name is "
    "shorter",
}


def disk_problem(error: Exception) -> str | None:
    """Say in one sentence what the operating system, or DuckDB in its words, has against a file;
    None where the error is of something else."""
    if isinstance(error, OSError):
        number, path = error.errno, error.filename
    else:
        text = first_line(error)
        number = next((n for n in _DISK_PROBLEMS if os.strerror(n) in text), None)
        path = next(iter(re.findall(r'"([^"]+)"', text)), None)
    if number not in _DISK_PROBLEMS:
        return None
    if number in (errno.EEXIST, errno.ENOTDIR) and path is not None:
        number = errno.EISDIR if Path(path).is_dir() else number
        path = next((one for one in Path(path).parents if one.is_file()), path)
    return _DISK_PROBLEMS[number].format(path=path or "a file")


def first_line(error: BaseException) -> str:
    """What a library says of its error, without the advice and the context that follow."""
    return str(error).strip().partition("\n")[0]
