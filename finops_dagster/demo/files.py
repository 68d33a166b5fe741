"""The writing of a file in one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give the block a path to write, and rename it to `path` after the block.

    So a reader sees the old file or the complete new one. Creates the folder. If the block raises,
    `path` stays as it was, but a hidden unfinished file may be left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)
