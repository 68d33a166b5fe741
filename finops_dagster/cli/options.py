"""Options that several commands share, and the groups that add them to each command."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
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


def month_option(value: str | None) -> str | None:
    """Return the value if it is None or a month YYYY-MM, else raise BadParameter."""
    try:
        return None if value is None else str(BillingMonth.parse(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[
    bool, typer.Option("--force", "--overwrite", help="Process unchanged months again.")
]
ExportName = Annotated[
    str | None, typer.Option("--export", metavar="NAME", help="Only this export. Default: all.")
]
Profile = Annotated[str | None, typer.Option(metavar="NAME", help="Profile in ~/.aws/config.")]
Role = Annotated[str | None, typer.Option(metavar="ARN", help="IAM role to assume.")]
ExternalId = Annotated[
    str | None, typer.Option(metavar="ID", help="External id that the role requires.")
]


@dataclass(frozen=True)
class Options:
    """The values of the shared options, which may stand before or after the command's name.

    `database_config` has texts KEY=VALUE. `start_date` and `end_date` are months YYYY-MM.
    """

    config: Path | None = None
    backend: str | None = None
    database_config: tuple[str, ...] = ()
    export: str | None = None
    start_date: str | None = None
    end_date: str | None = None

    @classmethod
    def of(cls, context: typer.Context) -> Options:
        """Return the values of the shared options, given to this command or to its groups."""
        return context.find_object(cls) or cls()

    def settings(self) -> Settings:
        """Load the settings file and override it by the options. Raises SettingsError."""
        from finops_dagster.settings import load_settings

        pairs = (text.partition("=") for text in self.database_config)
        return load_settings(self.config, self.backend, {key: value for key, _, value in pairs})

    @classmethod
    def settings_and_selection(cls, context: typer.Context) -> tuple[Settings, Selection]:
        """Return the settings, and the selected months, for a command of a vendor's group.

        The name of the group is the selected vendor. Raises SettingsError, and BillError if the
        last month is before the first.
        """
        # The group of a vendor's commands has the vendor's name.
        assert context.parent is not None
        options, vendor = cls.of(context), str(context.parent.info_name)
        start, end = options.start_date, options.end_date
        if start and end and end < start:
            raise BillError(f"--end-date {end} is before --start-date {start}; exchange them")
        return options.settings(), Selection(vendor, options.export, start, end)


@dataclass(frozen=True)
class Selection:
    """A choice of months: `start` to `end` inclusive, as YYYY-MM, of one export and one vendor.

    None selects all.
    """

    vendor: str | None = None
    export: str | None = None
    start: str | None = None
    end: str | None = None

    def exports(self, settings: Settings) -> list[ExportSettings]:
        """Return the selected exports. Raises BillError if there are none."""
        candidates = [export for export in settings.exports if self.vendor in (None, export.vendor)]
        chosen = [export for export in candidates if self.export in (None, export.name)]
        for export in settings.exports if not chosen else ():
            if export.name == self.export:
                raise BillError(
                    f"{settings.location}: the export {self.export!r} has vendor = "
                    f'"{export.vendor}", not "{self.vendor}"; use finops {export.vendor}'
                )
        if not chosen and self.export and candidates:
            names = ", ".join(export.name for export in candidates)
            raise BillError(
                f"{settings.location} has no export {self.export!r}; name one of these: {names}"
            )
        if not chosen:
            raise no_exports_error(settings, self.vendor)
        return chosen

    def months(self, export: ExportSettings) -> list[BillingMonth]:
        """Return the selected ones of an export's months, newest first; the list may be empty.

        The export's months are those of `ExportSettings.months`, which end with the current month
        or earlier. Whether the export itself is selected is not checked.
        """
        # The newest month is the one that people wait for.
        return [
            month
            for month in reversed(export.months())
            if (self.start or "") <= str(month) <= (self.end or "9999-12")
        ]


def no_exports_error(settings: Settings, vendor: str | None = None) -> BillError:
    """Return the error that the settings have no export of the vendor, or none at all."""
    return BillError(
        f"{settings.location} has no export{f' of {vendor}' if vendor else ''}: add an [[exports]] "
        "block, which finops config discover SOURCE prints"
    )


def _store(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> None:
    """Store the value of a shared option in `Options`.

    A later value replaces an earlier one; values of --database-config are added.
    """
    options = Options.of(context)
    if parameter.name == "database_config":
        if any(not text.partition("=")[0] or "=" not in text for text in value or ()):
            raise typer.BadParameter("must be KEY=VALUE, such as dataset=finops")
        value = (*options.database_config, *(value or ()))
    if parameter.name in ("start_date", "end_date"):
        value = month_option(value)
    # click looks for the object in the command's context, and then in those of its groups.
    if value is not None:
        context.obj = replace(options, **{str(parameter.name): value})


_shared_option = partial(typer.Option, callback=_store, expose_value=False, show_default=False)
_CONFIG_HELP = "Settings file. Default: $FINOPS_CONFIG, else config/finops.toml, else config.toml."
_BACKEND_HELP = "Warehouse, such as bigquery. Default: as in the settings."
_VALUE_HELP = "Setting of the warehouse, such as dataset=finops. May be given several times."
# The help of the shared options for commands that use few of them. The other options are accepted,
# so that the command can say why it refuses them, but not listed.
_OWN_HELP = {"init": {"config": "File to write. Default: config/finops.toml."}, "demo": {}}
# typer joins the lines of a paragraph that does not begin with this.
_KEEP_LINES = "\b\n"
# typer makes options from the signature of a command only, so two commands that nobody can call
# define them.
_shared = typer.Typer(add_completion=False)


@_shared.command("settings")
def _settings(
    config: Annotated[
        Path | None, _shared_option("--config", "-c", metavar="FILE", help=_CONFIG_HELP)
    ] = None,
    backend: Annotated[str | None, _shared_option(metavar="NAME", help=_BACKEND_HELP)] = None,
    database_config: Annotated[
        list[str] | None, _shared_option(metavar="KEY=VALUE", help=_VALUE_HELP)
    ] = None,
) -> None:
    """Define the options of every command once, for `CommandGroup`."""


@_shared.command("months")
def _months(
    export: Annotated[
        str | None, _shared_option(metavar="NAME", help="Only this export. Default: all.")
    ] = None,
    start_date: Annotated[
        str | None,
        _shared_option(metavar="YYYY-MM", help="First month. Default: the export's start_month."),
    ] = None,
    end_date: Annotated[
        str | None,
        _shared_option(
            metavar="YYYY-MM",
            help="Last month. Default: the export's end_month, else the newest that exists.",
        ),
    ] = None,
) -> None:
    """Define the options of a vendor's commands once, for `VendorGroup`."""


class CommandGroup(typer.core.TyperGroup):
    """A group of commands that takes the shared options before and after a command's name."""

    shared_options: tuple[str, ...] = ("settings",)
    """The commands of `_shared` whose options each command of the group gets."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        shared = typer.main.get_group(_shared).commands
        self.params = [*self.params, *shared["settings"].params]
        for command in self.commands.values():
            # A group within the group adds the options to its own commands.
            if not isinstance(command, CommandGroup):
                for name in self.shared_options:
                    options = [_listed(option, command.name) for option in shared[name].params]
                    command.params = [*command.params, *options]
                if command.help:
                    command.help = _help_text(command.help)
        if self.help:
            self.help = _help_text(self.help)


def _listed(option: Any, command: str | None) -> Any:
    """Return a shared option as the help of a command lists it."""
    if command not in _OWN_HELP:
        return option
    changed, help_text = copy(option), _OWN_HELP[command].get(option.name)
    changed.help, changed.hidden = help_text, help_text is None
    return changed


def _help_text(docstring: str) -> str:
    """Return a docstring as help: `$ ` begins an example, `- ` a list; other lines are joined."""
    paragraphs = cleandoc(docstring).split("\n\n")
    return "\n\n".join(
        _examples(paragraph)
        if paragraph.startswith("$ ")
        else f"{_KEEP_LINES}{paragraph}"
        if paragraph.startswith("- ")
        else " ".join(paragraph.split())
        for paragraph in paragraphs
    )


def _examples(paragraph: str) -> str:
    commands = [line.removeprefix("$ ") for line in paragraph.splitlines()]
    heading = "Example:" if len(commands) == 1 else "Examples:"
    return "\n  ".join([f"{_KEEP_LINES}{heading}", *commands])


class VendorGroup(CommandGroup):
    """The group of a vendor's commands, which all select months."""

    shared_options = ("months", "settings")

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # The vendors share their commands, with examples of AWS.
        for command in self.commands.values():
            if command.help:
                command.help = command.help.replace("finops aws ", f"finops {self.name} ")


def refuse_both(option: str, other: str) -> NoReturn:
    """Raise BadParameter, which says that two options exclude each other."""
    raise typer.BadParameter(f"{option} and {other} exclude each other; leave out one of them")


def exit_after(run: Callable[[], bool]) -> NoReturn:
    """Call `run`, and exit with 0 if it returns True, else with 1.

    After Ctrl-C, prints how to continue, and exits with 1.
    """
    try:
        succeeded = run()
    except KeyboardInterrupt:
        typer.echo("stopped; run the same command again to continue", err=True)
        succeeded = False
    raise typer.Exit(not succeeded)
