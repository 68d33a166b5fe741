"""What all months are at, for the commands that list them."""

from __future__ import annotations

from finops_dagster.cli.history import open_history
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row
from finops_dagster.settings import Settings


def month_status(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row a month, as `month_rows` has it."""
    with open_history() as history:
        # `open_history` imports Dagster, and says why DuckDB must be imported after it.
        from finops_dagster.cli.month_rows import month_rows

        return list(month_rows(settings, selection, history))
