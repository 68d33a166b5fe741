"""Errors of memory and disk, as messages: too little of it, no permission, a missing file."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from tempfile import TemporaryFile

import duckdb

from finops_dagster.billing.errors import BillError, first_line

_MESSAGES = {
    errno.ENOSPC: "{path} cannot be written: its disk is full; make room and try again",
    errno.EDQUOT: "{path} cannot be written: this user's quota is used up; make room and try again",
    errno.EFBIG: "{path} cannot be written: it would be larger than its disk or ulimit -f allows; "
    "raise the limit, or set another folder",
    errno.EROFS: "{path} cannot be written: its disk is read-only; remount it for writing, "
    "or set another folder",
    errno.EACCES: "{path} cannot be opened: this user has no permission; change its owner or mode, "
    "or set another folder",
    errno.EPERM: "{path} cannot be changed: this user has no permission; change its owner or mode, "
    "or set another folder",
    errno.ENOENT: "{path} does not exist; restore it, or run the same command again",
    errno.ENOTDIR: "{path} is a file where a folder should be; move it away, or set another folder",
    errno.EEXIST: "{path} is a file where a folder should be; move it away, or set another folder",
    errno.EISDIR: "{path} is a folder where a file should be; move it away, or set another folder",
    errno.EIO: "{path} cannot be read or written: the disk reports an error; check the disk",
    errno.EMFILE: "{path} cannot be opened: this process has too many files open; raise ulimit -n",
    errno.ENAMETOOLONG: "{path} cannot be created: its name is too long; set a folder with a "
    "shorter name",
}


def memory_or_disk_problem(error: BaseException) -> str | None:
    """Return a message of one line if memory or disk is the cause: what is wrong, and what to do.

    Such an error is DuckDB's OutOfMemoryException, or an OSError, or DuckDB's IOException or failed
    commit: no space, no permission, a missing file. None for every other error, also for an OSError
    of the network.
    """
    if isinstance(error, duckdb.OutOfMemoryException):
        return (
            "DuckDB needs more memory for this than database.duckdb.memory_limit; raise it, or "
            f"lower database.duckdb.threads ({first_line(error)})"
        )
    path: object
    code: int | None
    if isinstance(error, OSError):
        # A rename has two names; the second is the file that was to be written.
        code, path = error.errno, error.filename2 or error.filename
    elif not isinstance(error, duckdb.IOException | duckdb.TransactionException):
        return None
    else:
        # DuckDB has no error codes: its message quotes the path and strerror's words. That of a
        # thread which writes has the message of another error as JSON, with escaped quotes.
        text = first_line(error)
        code = next((n for n in _MESSAGES if os.strerror(n) in text), None)
        quoted = re.search(r'\\"([^"\\]+)\\"', text) or re.search(r'"([^"]+)"', text)
        path = quoted[1] if quoted else None
    if code not in _MESSAGES:
        return None
    if code in (errno.EEXIST, errno.ENOTDIR) and isinstance(path, str | os.PathLike):
        code = errno.EISDIR if Path(path).is_dir() else code
        # The error names the file that was to be opened; the parent that is a file is in the way.
        path = next((parent for parent in Path(path).parents if parent.is_file()), path)
    return _MESSAGES[code].format(path=path or "a file")


def check_writable(folder: Path, file: Path | None = None) -> str:
    """Check that a file can be created in the folder, and that `file` can be written if it exists.

    A folder that does not exist is checked by its nearest existing parent, and is not created.
    Returns a text for a message: the folder's path, with a note if the folder does not exist yet.
    Raises BillError.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        # The mode of a folder does not say whether its disk is read-only or full.
        with TemporaryFile(dir=existing):
            pass
        if file is not None and file.exists():
            file.open("r+b").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        path = file if file is not None and file.exists() else folder
        raise BillError(
            f"{path} cannot be written: {reason}; allow writing there, or set another path"
        ) from error
    return str(folder) if folder == existing else f"{folder}, created when needed"
