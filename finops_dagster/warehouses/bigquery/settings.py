"""Google BigQuery: a dataset of a project."""

from __future__ import annotations

from finops_dagster.settings_table import SettingsTable


class BigQuerySettings(SettingsTable):
    """A dataset; credentials come from the environment, as Google's clients find them."""

    project_id: str
    dataset: str = "finops"
    location: str = "US"
    api_endpoint: str | None = None
