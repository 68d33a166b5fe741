"""`finops`: the command, with the subcommands that need no vendor."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer

from finops_dagster.cli import (
    accounts,
    alerts,
    bill_report,
    budgets,
    focus,
    metrics,
    run,
    state,
    worker,
)
from finops_dagster.cli.options import CommandGroup, ExternalId, Json, Options, Profile, Role
from finops_dagster.cli.output import print_rows
from finops_dagster.cli.query_command import OutputFormat, QueryCommand, chosen_format
from finops_dagster.processes import raise_gc_threshold, set_private_umask
from finops_dagster.terminal import print_error, print_line


def _vendor_names() -> Iterable[str]:
    """Return the names of the vendors, each of which has a group of commands."""
    # Importing VENDORS takes longer than printing all of the help.
    if (sources := sys.modules.get("finops_dagster.sources")) is not None:
        return list(sources.VENDORS)
    spec = find_spec("finops_dagster.sources")
    folders = iter_modules(spec.submodule_search_locations if spec else None)
    return [module.name.replace("_", "-") for module in folders if module.ispkg]


_SUMMARY = """\
Load cloud cost exports, a month at a time, into DuckDB, Parquet and a warehouse.

Costs are exact to 18 decimals."""
_EPILOG = """\b
Examples:
  finops demo                 Load two invented bills, to try finops
  finops init                 Write config/finops.toml, for your own bill
  finops config check         Check the settings and every connection
  finops aws run-pipeline     Load every month
  finops state list           List the loaded months
  finops report               Write a report of the bill"""

app = typer.Typer(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=_SUMMARY,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would take the [[exports]] of a help text for markup
    pretty_exceptions_enable=False,
)
# Commands import what they need when they run: Dagster and the clients take a second or more, and
# `--help` needs none of them.
for _vendor in _vendor_names():
    app.add_typer(run.app, name=_vendor, help=run.group_help(_vendor))
app.add_typer(
    state.app, name="state", help="Show, verify, repair and move the records of loaded months."
)
app.add_typer(focus.app, name="focus", help="Check and compare the FOCUS charges of months.")
app.add_typer(
    accounts.app, name="accounts", help="List the bill's accounts, and fill the accounts file."
)
app.add_typer(alerts.app, name="alerts", help="Test the channels through which alerts are sent.")
app.add_typer(worker.app, name="worker", help="List and stop runs in progress.")


def main() -> None:
    """Run the command of `sys.argv`, and end the process.

    An error is printed as one line, with exit code 1; wrong usage has exit code 2. Sets the umask
    and the frequency of garbage collection, and escapes output that a terminal cannot print.
    """
    set_private_umask()
    raise_gc_threshold()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # A terminal may not be able to print Unicode.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        from finops_dagster.cli.errors import error_line

        print_error(error_line(error))
        raise SystemExit(1) from None


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        typer.echo(f"finops-dagster {version('finops-dagster')}")
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback()
def finops(_version: _Version = False) -> None:
    """Define the options of `finops` itself."""


@app.command()
def init(context: typer.Context) -> None:
    """Write a first settings file.

    Fails if the settings file exists already, and does not change it. Also writes two files into
    the working directory, unless they exist: dagster.yaml, which finops copies into DAGSTER_HOME
    once, and workspace.yaml, which Dagster's own commands read.

    $ finops init
    """
    from finops_dagster.cli.settings import write_first_settings

    file = write_first_settings(Options.of(context).config)
    print_line(
        f"{file} is written. Enter your bucket, or paste the output of finops config discover. "
        "Then run: finops config check"
    )


@app.command()
def demo(
    context: typer.Context,
    restate: Annotated[
        bool,
        typer.Option(
            "--restate",
            help="Write a changed version of the last AWS month, as AWS does, without loading it.",
        ),
    ] = False,
) -> None:
    """Load three months of two invented bills, from AWS and Azure.

    The demo uses its own settings only. Its files are in data/demo. Its runs are
    recorded in DAGSTER_HOME, like all other runs.

    $ finops demo
    $ finops demo --restate
    """
    if Options.of(context) != Options():
        raise typer.BadParameter(
            "the demo has its own settings; leave out --config, --backend and --database-config"
        )
    from finops_dagster.demo import __main__ as demo_bill

    if not restate:
        raise typer.Exit(demo_bill.main())
    for line in demo_bill.write_restated_version().splitlines():
        print_line(line)


@app.command()
def dev(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Port of the UI.")
    ] = 3000,
) -> None:
    """Start the Dagster UI and daemon.

    The daemon runs the sensors and schedules that are switched on. The UI listens on 127.0.0.1
    only.

    $ finops dev --port 3001
    """
    from finops_dagster.cli.dev import exec_dagster_dev

    exec_dagster_dev(Options.of(context), port)


QueryFormat = Annotated[
    OutputFormat | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="table, csv, json or parquet. Default: the suffix of --out, else table.",
    ),
]


@app.command(cls=QueryCommand)
def query(
    context: typer.Context,
    sql: Annotated[
        str | None,
        typer.Argument(
            metavar="[SQL]",
            show_default=False,
            help="One SELECT, or - to read it from standard input. Each export is a view with the "
            "name of its table. The view focus has the charges of all exports; focus_named also "
            "has the names of their accounts.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="File that has the SELECT.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(
            "--named",
            metavar="[NAME]",
            help="Answer a question of docs/focus.md. Without a name, list the questions.",
        ),
    ] = None,
    output_format: QueryFormat = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write, such as x.csv.")
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            metavar="YYYY-MM-DD",
            formats=["%Y-%m-%d"],
            help="Read the versions that the lake had at the end of that day, in UTC. If they were "
            "replaced since, storage.lake.keep_versions must have kept them.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Query the Parquet files of all exports.

    A query can run while months are being loaded. The format "table" shows at most 200 rows. The
    other formats have all rows.

    $ finops query "SELECT count(*) FROM aws_billing_data"
    $ finops query --named top-services
    $ finops query --file month.sql --out month.parquet
    $ finops query --as-of 2026-03-03 "SELECT sum(BilledCost) FROM focus"
    """
    from finops_dagster.cli import query as queries

    if named == "":
        print_rows(queries.question_rows(), as_json=json, empty="")
        return
    chosen = chosen_format(output_format, out, as_json=json)
    if named is not None and sql is None and file is None:
        sql = queries.question_sql(named)
    elif named is not None or (sql is None) == (file is None):
        raise typer.BadParameter("give exactly one of SQL, --file and --named")
    elif sql is None or sql == "-":
        sql = queries.read_sql("-" if file is None else str(file))
    try:
        day = None if as_of is None else as_of.date()
        queries.run_query(Options.of(context).settings(), sql, chosen, out, day)
    except queries.QueryInvalid as error:
        for line in (str(error), *error.sql_lines):
            print_error(line)
        raise typer.Exit(1) from error


app.command()(bill_report.report)
app.command()(budgets.budgets)
app.command()(budgets.anomalies)
app.command()(metrics.metrics)

config_app = typer.Typer(cls=CommandGroup, invoke_without_command=True)
app.add_typer(config_app, name="config")


@config_app.callback()
def config(context: typer.Context, json: Json = False) -> None:
    """Show the value of each setting, and where it comes from.

    $ finops config --backend bigquery
    """
    if context.invoked_subcommand is None:
        from finops_dagster.cli.settings import setting_rows

        print_rows(setting_rows(Options.of(context)), as_json=json, empty="no settings")


SourceAddress = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="s3://bucket/prefix, gs://bucket/prefix, "
        "https://account.blob.core.windows.net/container, or a folder.",
    ),
]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="AWS region of the bucket.")]
Endpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="Address of an S3 server that is not AWS.")
]
RequesterPays = Annotated[
    bool, typer.Option("--requester-pays", help="Pay for the requests, as the bucket requires.")
]


@config_app.command()
def discover(
    source: SourceAddress,
    region: Region = None,
    endpoint_url: Endpoint = None,
    profile: Profile = None,
    role_arn: Role = None,
    external_id: ExternalId = None,
    requester_pays: RequesterPays = False,
    json: Json = False,
) -> None:
    """Find exports in a bucket, a container or a folder.

    Prints an [[exports]] block for each export, to paste into the settings file. The command needs
    no settings file.

    $ finops config discover s3://acme-billing/cur --region us-east-1
    """
    from finops_dagster.cli.output import print_json
    from finops_dagster.cli.settings import export_row, export_toml, find_exports

    exports = find_exports(
        source,
        region=region,
        endpoint_url=endpoint_url,
        profile=profile,
        role_arn=role_arn,
        external_id=external_id,
        requester_pays=requester_pays,
    )
    if json:
        print_json(list(map(export_row, exports)))
    else:
        typer.echo("\n".join(map(export_toml, exports)), nl=False)


@config_app.command()
def check(context: typer.Context, json: Json = False) -> None:
    """Check that every export, folder and database can be used.

    Also checks the catalog, the accounts file and the budgets, if they are set. The exit code is 1
    if one of all these cannot be used.

    $ finops config check
    """
    from finops_dagster.cli.settings import check_connections

    rows = check_connections(Options.of(context).settings())
    print_rows(rows, as_json=json, empty="no exports are set")
    raise typer.Exit(any(row["problem"] for row in rows))
