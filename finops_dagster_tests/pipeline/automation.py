"""Dagster's automation of a project, evaluated by hand."""

from typing import Any

import dagster as dg

from finops_dagster_tests.project import Project


class Automation:
    """Evaluates the automation conditions of a project, as Dagster does every 30 seconds."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cursor: Any = None
        self.requested()  # Dagster's first evaluation knows of no earlier one.

    def requested(self) -> list[str]:
        """Return what a new evaluation requests, such as `2024-01 focus`; `report` has no month."""
        definitions, instance = self._project.definitions(), self._project.instance
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=self._cursor)
        self._cursor = result.cursor
        return [
            f"{month} {key.path[-1]}" if month else key.path[-1]
            for key in definitions.resolve_asset_graph().get_all_asset_keys()
            for month in sorted(result.get_requested_partitions(key), key=str)
        ]
