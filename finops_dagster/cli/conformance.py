"""`finops focus check`: check the files of charges against the rules of FOCUS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, count_text, first_line, reprocess_advice
from finops_dagster.billing.months import BillingMonth
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Headings, Row, cell_text
from finops_dagster.focus.conformance import BrokenRule, find_broken_rules
from finops_dagster.focus.month import FOCUS_VERSION, focus_lake
from finops_dagster.focus.rules import rules_of
from finops_dagster.focus.specification import Specification
from finops_dagster.lake import parquet_relation
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import console

HEADINGS: Headings = {
    "export": "export",
    "month": "month",
    "broken rule": "rule",
    "what it says": "text",
    "charges": "rows",
    "example": lambda row: ", ".join(
        f"{name}={cell_text(value)}" for name, value in row["example"].items()
    ),
}
Broken = tuple[str, BillingMonth, BrokenRule]
"""A rule that charges break, with their export and month."""


def check_charges(settings: Settings, selection: Selection) -> tuple[list[Broken], list[str]]:
    """Return the rules that charges break, and lines that say what was checked.

    The rules are in the order of exports in the settings, and then newest month first; disputed
    rules are among them. Months without a file of charges are skipped. Raises BillError if all are,
    if a file cannot be read, if memory does not suffice, or if no export is selected. On a
    terminal, standard error shows the month that is being read.
    """
    lake = focus_lake(settings.storage.open_lake())
    specification = Specification.load(FOCUS_VERSION)
    months = [
        (export.name, month, file)
        for export in selection.exports(settings)
        for month in selection.months(export)
        if (file := lake.file(export.name, month)).exists()
    ]
    if not months:
        raise BillError(
            f"{lake.location} has no charges of the selected months: they were not loaded (run "
            "finops aws run-pipeline, or that of another vendor), or their export has no charges "
            "of its own, such as one of Azure's amortized costs"
        )
    broken: list[Broken] = []
    with console(stderr=True).status("") as status:
        for export, month, file in months:
            status.update(f"reading {export} {month}")
            with DuckDB.with_limits(settings.database.duckdb).open_in_memory() as connection:
                try:
                    rules = find_broken_rules(
                        connection, parquet_relation(file.local_path()), specification
                    )
                except duckdb.Error as error:
                    raise BillError(
                        memory_or_disk_problem(error)
                        or f"{file.location} cannot be read: {first_line(error)}; "
                        f"{reprocess_advice(export, month)}"
                    ) from error
            broken += [(export, month, rule) for rule in rules]
    return broken, list(_coverage(len(months), specification, broken))


def broken_rule_row(export: str, month: BillingMonth, broken: BrokenRule) -> Row:
    """Return a broken rule as a row to print.

    `rule` is the rule's id, and `rows` the number of charges that break it, as in `BrokenRule`.
    """
    rule = broken.rule
    return {
        "export": export,
        "month": str(month),
        "rule": rule.id,
        "text": rule.text,
        "rows": broken.rows,
        "example": dict(broken.example),
        "required": rule.required,
        "disputed": rule.disputed,
        "model_rules": list(rule.model_ids),
    }


def _coverage(months: int, specification: Specification, broken: Sequence[Broken]) -> Iterator[str]:
    """Yield lines that say what was checked, and why a disputed rule may be broken."""
    rules = count_text(len(rules_of(specification)), "rule")
    yield f"checked {count_text(months, 'month')}: {rules} of FOCUS {specification.version}"
    disputed = {found.rule.id: found.rule.disputed for *_, found in broken if found.rule.disputed}
    for rule, reason in disputed.items():
        yield f"{rule} is disputed: {reason}"
