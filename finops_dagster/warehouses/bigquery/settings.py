"""The settings of the BigQuery warehouse."""

from __future__ import annotations

from finops_dagster.settings_table import SettingsTable


class BigQuerySettings(SettingsTable):
    """A dataset of a project; Google's client finds the credentials in the environment.

    If the lake is in `gs://`, BigQuery reads files that need no cast from there, unless
    `load_from_lake` is false. `api_endpoint` is the address of an emulator, which gets no
    credentials.
    """

    project_id: str
    dataset: str = "finops"
    location: str = "US"
    load_from_lake: bool = True
    api_endpoint: str | None = None
