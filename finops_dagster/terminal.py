"""Output to a terminal, a pipe or a log, in which untrusted text is shown and not acted on.

By default, rich takes `[/b]` for markup and `:key:` for an emoji, and sends ESC to the terminal.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

from finops_dagster.billing.errors import shortened

_LOG_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or error, without markup, emoji and highlighting.

    It does not escape: pass untrusted text through `shortened` first. In a pipe or a file it has no
    colours, and its lines have COLUMNS or 200 characters.
    """
    # In a pipe rich would take 80 columns, and fold what a log should have in one line.
    stream = sys.stderr if stderr else sys.stdout
    is_log = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(
        stderr=stderr,
        width=_LOG_WIDTH if is_log else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def print_line(line: str) -> None:
    """Print a line to standard output, escaped and cut as by `shortened`."""
    print(shortened(line), flush=True)  # noqa: T201


def print_error(line: str) -> None:
    """Print a line to standard error, escaped and cut as by `shortened`."""
    print(shortened(line), file=sys.stderr, flush=True)  # noqa: T201
