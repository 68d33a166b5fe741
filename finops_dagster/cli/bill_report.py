"""`finops report`: write a report of the bill, as one page or as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Options, Selection, month_option, no_exports_error
from finops_dagster.terminal import print_line

if TYPE_CHECKING:
    from finops_dagster.reports.builder import Scope
    from finops_dagster.reports.document import Document
    from finops_dagster.settings import Settings
    from finops_dagster.sources.settings import ExportSettings


def report(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File to write. For csv, a folder to write. Default: report.<format>; for csv, "
            "report.",
        ),
    ] = None,
    output_format: Annotated[
        Literal["html", "xlsx", "csv", "json"],
        typer.Option("--format", metavar="FORMAT", help="html, xlsx, csv or json."),
    ] = "html",
    month: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM",
            callback=month_option,
            help="Last month of the report. The page opens at it. Default: the newest month; the "
            "page then opens at the newest complete month.",
        ),
    ] = None,
    months: Annotated[
        int, typer.Option(metavar="N", min=1, max=120, help="Number of months.")
    ] = 13,
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this export. May be given several times."),
    ] = None,
    currency: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Currency that is shown first, such as USD."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the report.")] = False,
) -> None:
    """Write a report of the bill.

    The default is one HTML page, which works offline. It shows the costs of all clouds by month,
    service, account and region. It also shows the largest changes, the savings, and the version of
    each month. Amounts in different currencies are never added up.

    $ finops report --open
    $ finops report --month 2026-01 --format xlsx --out january.xlsx
    """
    from finops_dagster.reports.builder import Scope
    from finops_dagster.reports.files import write_report
    from finops_dagster.reports.headline import Headline

    last = BillingMonth.parse(month) if month else None
    settings = Options.of(context).settings()
    document = _document(settings, export or [], Scope(last, months, currency))
    path = out or Path("report" if output_format == "csv" else f"report.{output_format}")
    write_report(document, path, output_format)
    print_line(f"{path} is written: {document['months'][0]} to {document['months'][-1]}")
    if headline := Headline.of(document):
        print_line(str(headline))
    if open_it:
        typer.launch(str(path))


def _document(settings: Settings, exports: Sequence[str], scope: Scope) -> Document:
    """Return the document of the exports with these names, or of all.

    Raises BillError if there is no such export, or if none has charges.
    """
    from finops_dagster.focus.exports import charge_sources
    from finops_dagster.focus.month import focus_lake

    if not settings.exports:
        raise no_exports_error(settings)
    for name in exports:
        Selection(export=name).exports(settings)  # raises for an unknown name
    chosen = [export for export in settings.exports if not exports or export.name in exports]
    builder = settings.report_builder(chosen)
    lake = focus_lake(builder.lake)
    if not any(charge_sources(export) or lake.files(export.name) for export in chosen):
        raise _no_charges_error(settings, chosen)
    document = builder.document(scope)
    if not document["months"]:
        names = ", ".join(export.name for export in chosen)
        raise BillError(
            f"{builder.lake.location} has no charges of {names}; load a month first, such as by "
            "finops aws run-pipeline"
        )
    return document


def _no_charges_error(settings: Settings, exports: Sequence[ExportSettings]) -> BillError:
    """Return the error that no charges belong to these exports, with those to choose instead."""
    from finops_dagster.focus.exports import charge_sources

    names = [export.name for export in exports]
    sources = {export.name: charge_sources(export) for export in settings.exports}
    others = {name: {*bills.values()} for name, bills in sources.items() if bills}
    completed = [name for name, bills in others.items() if not bills.isdisjoint(names)]
    if others:
        advice = f"; choose {' or '.join(completed or others)} by --export"
    elif exports[0].lacks_charges(settings.exports):
        advice = ": they need actual and amortized costs, joined by amortized_from"
    else:
        advice = "; add an export of a format that has charges (docs/focus.md lists them)"
    owner = "has no charges of its own" if len(names) == 1 else "have no charges of their own"
    return BillError(f"{', '.join(names)} {owner}{advice}")
