"""The options that commands share: which settings, which months, and how rows are printed."""

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

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth

if TYPE_CHECKING:
    from finops_dagster.settings import Settings
    from finops_dagster.sources.settings import ExportSettings


def check_month(value: str | None) -> str | None:
    """Refuse what is no month, as a mistake of usage."""
    try:
        return None if value is None else str(BillingMonth.parse(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Force = Annotated[bool, typer.Option("--force", "--overwrite", help="Redo unchanged months.")]
ExportName = Annotated[
    str | None, typer.Option("--export", metavar="NAME", help="Only this export. Default: all.")
]


@dataclass(frozen=True)
class Options:
    """The options that are kept for a command: which settings are in force, what is set over them,
    and of the commands of a vendor which months of which export."""

    config: Path | None = None
    backend: str | None = None
    database_config: tuple[str, ...] = ()
    export: str | None = None
    start_date: str | None = None
    end_date: str | None = None

    @classmethod
    def of(cls, context: typer.Context) -> Options:
        """Return the options that were given before and after the command's name."""
        return context.find_object(cls) or cls()

    def settings(self) -> Settings:
        """Read the settings in force. Raises SettingsError."""
        from finops_dagster.settings import load_settings

        pairs = (text.partition("=") for text in self.database_config)
        return load_settings(self.config, self.backend, {key: value for key, _, value in pairs})

    @classmethod
    def months(cls, context: typer.Context) -> tuple[Settings, Selection]:
        """Return the settings in force, and the months of the vendor under whose name the command
        was called. Raises SettingsError."""
        assert context.parent is not None
        given = cls.of(context)
        vendor = str(context.parent.info_name)
        return given.settings(), Selection(vendor, given.export, given.start_date, given.end_date)


@dataclass(frozen=True)
class Selection:
    """The months from `start` to `end`, of one export or of all, of one vendor or of all."""

    vendor: str | None = None
    export: str | None = None
    start: str | None = None
    end: str | None = None

    def exports(self, settings: Settings) -> list[ExportSettings]:
        """Return the exports. Raises BillError where there are none."""
        of_vendor = [export for export in settings.exports if self.vendor in (None, export.vendor)]
        chosen = [export for export in of_vendor if self.export in (None, export.name)]
        if not chosen and self.export:
            names = ", ".join(export.name for export in of_vendor) or "none"
            raise BillError(f"there is no export {self.export!r}; the settings have {names}")
        if not chosen:
            raise BillError(
                f"the settings have no export of {self.vendor or 'any vendor'}: add an [[exports]] "
                "table; finops init writes an example"
            )
        return chosen

    def months(self, export: ExportSettings) -> list[BillingMonth]:
        """Return the export's months in the range, the newest first, which people wait for."""
        return [
            month
            for month in reversed(export.months())
            if (self.start or "") <= str(month) <= (self.end or "9999-12")
        ]


def _keep(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> None:
    """Keep what is given; what is given later wins, and values of the backend add up."""
    options = Options.of(context)
    if parameter.name == "database_config":
        if any(not text.partition("=")[0] or "=" not in text for text in value or ()):
            raise typer.BadParameter("it is given as KEY=VALUE, such as dataset=finops")
        value = (*options.database_config, *(value or ()))
    if parameter.name in ("start_date", "end_date"):
        value = check_month(value)
    if value is not None:
        context.obj = replace(options, **{str(parameter.name): value})


_kept = partial(typer.Option, callback=_keep, expose_value=False, show_default=False)
_CONFIG_HELP = "Settings file. Default: $FINOPS_CONFIG, config/finops.toml, config.toml."
_BACKEND_HELP = "Where months are loaded to, such as bigquery. Default: as in the settings."
_VALUE_HELP = "Setting of the backend, such as dataset=finops. Repeatable."
_carriers = typer.Typer(add_completion=False)


@_carriers.command("settings")
def _settings(
    config: Annotated[
        Path | None, _kept("--config", "-c", metavar="FILE", help=_CONFIG_HELP)
    ] = None,
    backend: Annotated[str | None, _kept(metavar="NAME", help=_BACKEND_HELP)] = None,
    database_config: Annotated[
        list[str] | None, _kept(metavar="KEY=VALUE", help=_VALUE_HELP)
    ] = None,
) -> None:
    """Define the options of every command once, for `Group`."""


@_carriers.command("months")
def _months(
    export: Annotated[
        str | None, _kept(metavar="NAME", help="Only this export. Default: all.")
    ] = None,
    start_date: Annotated[
        str | None, _kept(metavar="YYYY-MM", help="First month. Default: the first of the export.")
    ] = None,
    end_date: Annotated[
        str | None, _kept(metavar="YYYY-MM", help="Last month. Default: the newest.")
    ] = None,
) -> None:
    """Define the options of a vendor's commands once, for `VendorGroup`."""


class Group(typer.core.TyperGroup):
    """A group of commands that takes the settings of `Options` before and after a command's name,
    and gives each command the options that the group's are to have."""

    of_commands: tuple[str, ...] = ("settings",)

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        carriers = typer.main.get_group(_carriers).commands
        self.params = [*self.params, *carriers["settings"].params]
        for command in self.commands.values():
            if not isinstance(command, Group):
                for name in self.of_commands:
                    command.params = [*command.params, *carriers[name].params]
                if command.help:
                    command.help = _help_text(command.help)
        if self.help:
            self.help = _help_text(self.help)


def _help_text(docstring: str) -> str:
    """Return a docstring as help: lines that begin with `$ ` are examples, others are joined."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(
        _examples(paragraph) if paragraph.startswith("$ ") else " ".join(paragraph.split())
        for paragraph in paragraphs
    )


def _examples(paragraph: str) -> str:
    commands = [line.removeprefix("$ ") for line in paragraph.splitlines()]
    heading = "Example:" if len(commands) == 1 else "Examples:"
    # typer joins the lines of a paragraph unless it begins with \b.
    return "\n  ".join([f"\b\n{heading}", *commands])


class VendorGroup(Group):
    """The group of a vendor's commands, which are all over months."""

    of_commands = ("months", "settings")


def exit_after(run: Callable[[], bool]) -> NoReturn:
    """Run months and exit with 0 where all went well; Ctrl-C says how to go on."""
    try:
        ended_well = run()
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on where it stopped", err=True)
        ended_well = False
    raise typer.Exit(not ended_well)
