"""Write a file whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finops_dagster.billing.errors import BillError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path beside the file to write to, and put it in the file's place after the block.

    The new file has the mode of the old one. On any error, also in the block, the old file stays.
    Raises BillError if the folder is missing, and OSError.
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
