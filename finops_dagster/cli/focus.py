"""`finops focus`: check a month's FOCUS charges."""

from __future__ import annotations

import typer

from finops_dagster.cli.options import Group, Json, Options, Selection
from finops_dagster.cli.output import show
from finops_dagster.cli.state import OptionalExport, OptionalMonth
from finops_dagster.terminal import print_error

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.command()
def check(
    context: typer.Context,
    export: OptionalExport = None,
    month: OptionalMonth = None,
    json: Json = False,
) -> None:
    """Check the charges of a month against every rule of FOCUS.

    Lists each rule that charges break, with the number of charges and an example; the exit code is
    then 1. A disputed rule, which charges that are right may break, does not change the exit code.

    $ finops focus check
    $ finops focus check acme 2026-01
    """
    from finops_dagster.cli import conformance

    settings, selection = Options.of(context).settings(), Selection(None, export, month, month)
    broken, coverage = conformance.check(settings, selection)
    rows = [conformance.as_row(*rule) for rule in broken]
    show(rows, as_json=json, empty="no rule is broken", headings=conformance.HEADINGS)
    for line in coverage:
        print_error(line)
    raise typer.Exit(any(not rule.rule.disputed for _, _, rule in broken))
