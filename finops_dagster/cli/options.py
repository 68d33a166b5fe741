"""The options that every command takes: which settings, and what of them is overridden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import typer.core
import typer.main

if TYPE_CHECKING:
    from finops_dagster.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True)
class Options:
    """The options of every command: which settings are in force, and what is set over them."""

    config: Path | None = None
    backend: str | None = None
    database_config: tuple[str, ...] = ()

    @classmethod
    def of(cls, context: typer.Context) -> Options:
        """Return the options that were given before and after the command's name."""
        return context.find_object(cls) or cls()

    def settings(self) -> Settings:
        """Read the settings in force. Raises SettingsError."""
        from finops_dagster.settings import load_settings

        pairs = (text.partition("=") for text in self.database_config)
        return load_settings(self.config, self.backend, {key: value for key, _, value in pairs})


def _set(context: typer.Context, **given: Any) -> None:
    context.obj = replace(Options.of(context), **given)


def _set_config(context: typer.Context, value: Path | None) -> None:
    if value is not None:
        _set(context, config=value)


def _set_backend(context: typer.Context, value: str | None) -> None:
    if value is not None:
        _set(context, backend=value)


def _set_database_config(context: typer.Context, value: list[str] | None) -> None:
    """Refuse what is not KEY=VALUE, as a mistake of usage."""
    for text in value or ():
        if not text.partition("=")[0] or "=" not in text:
            raise typer.BadParameter("it is given as KEY=VALUE, such as dataset=finops")
    _set(context, database_config=(*Options.of(context).database_config, *(value or ())))


_own = partial(typer.Option, rich_help_panel="Settings", expose_value=False)
_carrier = typer.Typer(add_completion=False)


@_carrier.command()
def _carry(
    _config: Annotated[
        Path | None,
        _own(
            *("--config", "-c"),
            metavar="FILE",
            callback=_set_config,
            help="Settings file. Default: $FINOPS_CONFIG, config/finops.toml, config.toml.",
        ),
    ] = None,
    _backend: Annotated[
        str | None,
        _own("--backend", metavar="NAME", callback=_set_backend, help="Where months end."),
    ] = None,
    _database_config: Annotated[
        list[str] | None,
        _own(
            "--database-config",
            metavar="KEY=VALUE",
            callback=_set_database_config,
            help="A value of the backend; repeatable.",
        ),
    ] = None,
) -> None:
    """Define the options once; `Group` gives them to all of its commands."""


class Group(typer.core.TyperGroup):
    """A group of commands that takes the options of `Options` before and after a command's name;
    what is given later wins."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        own = typer.main.get_command(_carrier).params
        leaves = (one for one in self.commands.values() if not isinstance(one, Group))
        for command in (self, *leaves):
            command.params = [*command.params, *own]
            command.help = command.help and _one_line_a_paragraph(command.help)


def _one_line_a_paragraph(text: str) -> str:
    """Let a terminal of any width fold the text: typer keeps the line ends of the source."""
    return "\n\n".join(" ".join(one.split()) for one in cleandoc(text).split("\n\n"))


def check_month(value: str | None) -> str | None:
    """Refuse what is no month, as a mistake of usage."""
    from finops_dagster.billing.months import BillingMonth

    try:
        return None if value is None else str(BillingMonth.parse(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def exit_after(run: Callable[[], bool]) -> NoReturn:
    """Run months and exit with 0 where all went well; Ctrl-C says how to go on."""
    try:
        ended_well = run()
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on where it stopped", err=True)
        ended_well = False
    raise typer.Exit(not ended_well)
