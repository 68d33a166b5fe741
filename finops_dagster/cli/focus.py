"""`finops focus`: check the FOCUS charges of months, and compare those of two exports."""

from __future__ import annotations

from typing import Annotated

import typer

from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import CommandGroup, Json, Options, Selection
from finops_dagster.cli.output import print_rows
from finops_dagster.cli.state import (
    ExportArgument,
    MonthArgument,
    OptionalExport,
    OptionalMonth,
)
from finops_dagster.terminal import print_error

app = typer.Typer(cls=CommandGroup, no_args_is_help=True)


@app.command()
def check(
    context: typer.Context,
    export: OptionalExport = None,
    month: OptionalMonth = None,
    json: Json = False,
) -> None:
    """Check the charges of months against every rule of FOCUS.

    Lists each rule that charges break, with the number of charges and an example. Some rules are
    disputed, because correct charges may break them. The exit code is 1 if charges break a rule
    that is not disputed.

    $ finops focus check
    $ finops focus check acme 2026-01
    """
    from finops_dagster.cli import conformance

    settings, selection = Options.of(context).settings(), Selection(None, export, month, month)
    broken, coverage = conformance.check_charges(settings, selection)
    rows = [conformance.broken_rule_row(*rule) for rule in broken]
    print_rows(rows, as_json=json, empty="no rule is broken", headings=conformance.HEADINGS)
    for line in coverage:
        print_error(line)
    raise typer.Exit(any(not rule.rule.disputed for _, _, rule in broken))


OtherExport = Annotated[
    str, typer.Argument(metavar="OTHER_EXPORT", help="Name of the export to compare it with.")
]


@app.command()
def compare(
    context: typer.Context,
    export: ExportArgument,
    other_export: OtherExport,
    month: MonthArgument,
    json: Json = False,
) -> None:
    """Compare the charges of two exports in a month.

    For example, compare AWS's own FOCUS export with the charges that are derived from the CUR of
    the same bill. Lists each combination of account, service and category whose billed or effective
    cost differs. The exit code is 1 if any cost differs.

    $ finops focus compare acme acme-focus 2026-01
    """
    from finops_dagster.cli import comparison

    exports = (export, other_export)
    settings = Options.of(context).settings()
    groups = comparison.compare_exports(settings, exports, BillingMonth.parse(month))
    differing = [group for group in groups if group.differs]
    rows = [comparison.group_row(group) for group in differing]
    headings = comparison.comparison_headings(exports)
    print_rows(rows, as_json=json, empty="nothing differs", headings=headings)
    for line in comparison.summary_lines(exports, groups):
        print_error(line)
    raise typer.Exit(bool(differing))
