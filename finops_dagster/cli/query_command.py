"""The arguments of `finops query`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import typer
import typer.core

from finops_dagster.cli.options import refuse_both

OutputFormat = Literal["table", "csv", "json", "parquet"]
"""How the rows of a query are printed or written."""
_SUFFIXES: dict[str, OutputFormat] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
# A comment of SQL, which is no option: options have no blanks before their value.
_COMMENT = re.compile(r"--[^=]*\s")


class QueryCommand(typer.core.TyperCommand):
    """A command whose option `--named` may have no value, and whose argument is SQL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as click does; `--named` without a name gets an empty text.

        Raises BadParameter for SQL that begins with a comment, which looks like an option.
        """
        end = args.index("--") if "--" in args else len(args)
        if any(map(_COMMENT.match, args[:end])):
            raise typer.BadParameter(
                "SQL that begins with -- is taken for an option; write -- as an argument of its "
                'own before it (finops query -- "SQL"), or use --file'
            )
        for position in reversed(range(end)):
            value = args[position + 1 : position + 2]
            if args[position] == "--named" and (not value or value[0].startswith("-")):
                args = [*args[: position + 1], "", *args[position + 1 :]]
        return super().parse_args(ctx, args)


def chosen_format(
    output_format: OutputFormat | None, out: Path | None, *, as_json: bool
) -> OutputFormat:
    """Return the format of `--format` or `--json`, else of the suffix of `--out`, else a table.

    With either option, the suffix may be any. Raises BadParameter for `--json` with another
    `--format`, for parquet without `out`, and for `out` without a format that a file can have.
    """
    if as_json:
        if output_format not in (None, "json"):
            refuse_both("--json", f"--format {output_format}")
        return "json"
    if out is None:
        if output_format == "parquet":
            raise typer.BadParameter("--format parquet needs a file: add --out FILE")
        return output_format or "table"
    file_format = output_format or _SUFFIXES.get(out.suffix.lower())
    if file_format in (None, "table"):
        raise typer.BadParameter("--out needs --format csv, json or parquet")
    return file_format
