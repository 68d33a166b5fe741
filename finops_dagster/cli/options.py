"""What is said before the command: which settings, and what of them is overridden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

if TYPE_CHECKING:
    from finops_dagster.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True)
class Options:
    """The options of `finops` itself."""

    config: Path | None
    backend: str | None
    database_config: tuple[str, ...]

    @classmethod
    def of(cls, context: typer.Context) -> Options:
        """The options that were given before this command."""
        return cast(Options, context.find_object(cls))

    def settings(self) -> Settings:
        """The settings in force. Raises SettingsError."""
        from finops_dagster.settings import load_settings

        pairs = (text.partition("=") for text in self.database_config)
        return load_settings(self.config, self.backend, {key: value for key, _, value in pairs})


def check_pairs(values: list[str]) -> list[str]:
    """Refuse what is not KEY=VALUE, as a mistake of usage."""
    for value in values:
        if not value.partition("=")[0] or "=" not in value:
            raise typer.BadParameter("it is given as KEY=VALUE, such as dataset=finops")
    return values


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
