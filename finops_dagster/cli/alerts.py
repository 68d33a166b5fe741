"""`finops alerts`: test the channels through which alerts are sent."""

from __future__ import annotations

import typer

from finops_dagster.cli.options import CommandGroup, Json, Options
from finops_dagster.cli.output import Row, print_rows

app = typer.Typer(cls=CommandGroup, no_args_is_help=True)


@app.callback()
def alerts() -> None:
    """Keep `test` a subcommand: typer would replace a group of one command by that command."""


@app.command("test")
def send_test(context: typer.Context, json: Json = False) -> None:
    """Send a test message through each channel of the table [alerts].

    The exit code is 1 if the message cannot be sent through one of the channels.

    $ finops alerts test
    """
    rows = _send_test(context)
    print_rows(rows, as_json=json, empty="no channel is set")
    raise typer.Exit(any(row["problem"] for row in rows))


def _send_test(context: typer.Context) -> list[Row]:
    """Return a row for each channel: `answer`, or `problem` in one line; the other is empty."""
    from finops_dagster.alerts.alert import sample_alert
    from finops_dagster.alerts.channels import channels_of
    from finops_dagster.alerts.send import SendFailed
    from finops_dagster.settings_table import SettingsError

    settings = Options.of(context).settings()
    if settings.alerts is None:
        raise SettingsError(
            f"{settings.location} has no table [alerts]; docs/alerts.md says how to write one"
        )
    rows = []
    for name, channel in channels_of(settings.alerts).items():
        try:
            rows.append({"channel": name, "answer": channel.send(sample_alert()), "problem": ""})
        except SendFailed as error:
            rows.append({"channel": name, "answer": "", "problem": str(error)})
    return rows
