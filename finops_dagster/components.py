"""`CostExport`: a component of any Dagster project, whose `defs.yaml` is one export."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import create_model

from finops_dagster.pipeline.build import export_definitions, shared_definitions
from finops_dagster.settings import Settings, export_settings, settings_with_exports
from finops_dagster.settings_table import SettingsError
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings

PREFIX = "finops_"
"""Begins the keys of resources and the names of sensors that the exports of a project share."""

# The values are validated by the vendor's settings, so that a mistake is one line.
_KEYS: Any = {key: (Any, None) for v in VENDORS.values() for key in v.settings.model_fields}
_ExportKeys: Any = create_model("_ExportKeys", __base__=dg.Model, **_KEYS)
_EXAMPLE = {
    "vendor": "aws",
    "source": "s3://acme-billing/cur",
    "export_name": "acme-cur",
    "start_month": "2026-01",
    "settings": "config/finops.toml",
}


class _Scaffolder(dg.Scaffolder[Any]):
    """Writes a `defs.yaml` to fill in; the folder's name becomes the export's."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        dg.scaffold_component(request, {"name": request.target_path.name, **_EXAMPLE})


@dg.scaffold_with(_Scaffolder)
class CostExport(dg.Component, dg.Resolvable, _ExportKeys):
    """One cost export: its assets, checks, job and sensor.

    The attributes are the keys of a block `[[exports]]`, and three more. `settings` is the path of
    a settings file; all of its tables are used, but not its exports. `storage` and `database` are
    tables as in that file, and override it. All exports of a project are one bill in one lake, so
    these three must be the same in each. Paths are relative to the working directory.
    """

    name: Any = None
    settings: Any = None
    storage: dict[str, Any] | None = None
    database: dict[str, Any] | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the export. Raises SettingsError.

        The component whose export is the first by name also returns what all exports of the project
        share: resources, the report, further sensors.
        """
        all_components = context.component_tree.get_all_components(of_type=CostExport)
        components = {component.export.name: component for component in all_components}
        components.setdefault(self.export.name, self)
        for other in components.values():
            self._require_same_tables(other)
        exports = [components[name].export for name in sorted(components)]
        settings = self._settings(exports)
        definitions = export_definitions(settings, self.export.name, PREFIX)
        if exports[0].name != self.export.name:
            return definitions
        return dg.Definitions.merge(definitions, shared_definitions(settings, PREFIX))

    @property
    def export(self) -> ExportSettings:
        """The settings of the export. Raises SettingsError."""
        values = {key: getattr(self, key) for key in _KEYS}
        return export_settings({k: v for k, v in values.items() if v is not None}, self._location)

    @property
    def _location(self) -> str:
        return f"defs.yaml of the export {self.name or '(without a name)'}"

    @property
    def _shared_tables(self) -> tuple[Any, ...]:
        return self.settings, self.storage, self.database

    def _require_same_tables(self, other: "CostExport") -> None:
        """Raise SettingsError if another export of the project has another lake or database."""
        if other._shared_tables != self._shared_tables:
            raise SettingsError(
                f"{self._location}: settings, storage or database differ from those of "
                f"{other.name}; all exports of a project are one bill: give them the same values"
            )

    def _settings(self, exports: list[ExportSettings]) -> Settings:
        return settings_with_exports(
            exports,
            path=None if self.settings is None else Path(self.settings),
            location=self._location,
            storage=self.storage,
            database=self.database,
        )
