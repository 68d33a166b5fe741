"""Output to a terminal, a pipe or a log, in which text from outside is shown as it is.

In rich's own console `[/b]` is markup, `:key:` is an emoji, and ESC reaches the terminal.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

from finops_dagster.billing.errors import shortened

_LOG_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """Return a console without markup, emoji and highlighting.

    In a pipe it has no colours, and lines of COLUMNS or 200 characters.
    """
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
    """Print a line to standard output."""
    print(shortened(line), flush=True)  # noqa: T201


def print_error(line: str) -> None:
    """Print a line to standard error."""
    print(shortened(line), file=sys.stderr, flush=True)  # noqa: T201
