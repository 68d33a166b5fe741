"""Any SQL database that dlt can load and that has transactions: a dataset of a destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from finops_dagster.settings_table import LocalPath, SettingsTable


class Settings(SettingsTable):
    """A destination of dlt and a dataset in it: a schema, or what it has for one. Further keys are
    the destination's own, `credentials` above all; secrets come from the environment, as
    DESTINATION__<DESTINATION>__CREDENTIALS__PASSWORD."""

    model_config = ConfigDict(extra="allow", frozen=True)

    destination: str
    dataset: str = "finops"
    working_dir: LocalPath = Path("data/dlt")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are the destination's own."""
        return dict(self.model_extra or {})

    def _secret_belongs(self, name: str) -> str:
        variable = f"DESTINATION__{self.destination}__{name.replace('.', '__')}".upper()
        return f"give it in the environment, as {variable}"
