"""The status of all months, for the commands that list them."""

from __future__ import annotations

from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Row
from finops_dagster.pipeline.history import open_history
from finops_dagster.settings import Settings


def selected_month_rows(settings: Settings, selection: Selection) -> list[Row]:
    """Return the rows of `month_rows` for the selected months.

    Call it before DuckDB is imported: the process then ends faster, see `open_history`.
    """
    with open_history() as history:
        # month_rows imports DuckDB.
        from finops_dagster.cli.month_rows import month_rows

        return list(month_rows(settings, selection, history))
