"""Writes a file completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finops_dagster.billing.errors import BillError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give the block a path to write to, and replace the file at `path` by it after the block.

    The new file gets the mode of the old one. If `path` is a link, the file that it leads to is
    replaced. After any error, also in the block, the old file stays. Raises BillError if the folder
    is missing, and OSError if the file cannot be replaced.
    """
    # A link stays, and the file that it leads to is replaced.
    target = path.resolve()
    if not target.parent.is_dir():
        raise BillError(
            f"{path} cannot be written: the folder {path.parent} does not exist; create it, or "
            "name another file"
        )
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
