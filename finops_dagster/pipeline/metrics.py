"""Metrics for Prometheus, of months, runs and budgets.

Amounts are floats, for graphs and alerts; the ledger has them exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.pipeline.history import History, open_history
from finops_dagster.pipeline.month_metrics import (
    LakeMonth,
    Months,
    budget_metrics,
    gauge,
    load_duration_metrics,
    month_metrics,
    read_budgets,
    read_lake_months,
)
from finops_dagster.pipeline.run_metrics import RunMetrics, recent_history
from finops_dagster.reports.budgets import BudgetMonth
from finops_dagster.settings import Settings

OpenHistory = Callable[[], AbstractContextManager[History]]
# Budgets need the charges of all months, which change a few times a day.
_SECONDS_OF_BUDGETS = 600


class Metrics(Collector):
    """Collects the metrics of all exports of the settings, for Prometheus' client.

    A collection within `seconds` of the last one repeats it, and one within ten minutes repeats the
    budgets. The setting `metrics.months` says how many of the newest months of each export are
    read. If the lake, the ledger, the budgets or Dagster's history cannot be read, the metrics from
    it are left out, and `on_problem` gets a line. `open_history` opens Dagster's history, by
    default that in DAGSTER_HOME.
    """

    def __init__(
        self,
        settings: Settings,
        on_problem: Callable[[str], None],
        seconds: float = 0,
    ) -> None:
        self.open_history: OpenHistory = open_history
        self._settings, self._on_problem, self._seconds = settings, on_problem, seconds
        self._lock = Lock()
        self._collected: tuple[float, list[Metric]] | None = None
        self._budgets: tuple[float, list[BudgetMonth]] | None = None

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, read again or repeated; only one thread collects at a time."""
        with self._lock:
            now = time.monotonic()
            if self._collected is None or now - self._collected[0] >= self._seconds:
                self._collected = now, list(self._collect())
            return self._collected[1]

    def prometheus_text(self) -> str:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry()).decode()

    def registry(self) -> CollectorRegistry:
        """Return a registry with these metrics alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def write_file(self, file: Path) -> None:
        """Write the metrics to a file in one step, so that no reader sees half.

        Raises BillError if the file cannot be written, such as without its folder.
        """
        try:
            write_to_textfile(str(file), self.registry())
        except OSError as error:
            raise BillError(
                f"{file} cannot be written: {error.strerror}; create its folder, allow writing "
                "there, or name another file"
            ) from error

    def _collect(self) -> Iterator[Metric]:
        started = time.monotonic()
        count, exports = self._settings.metrics.months, self._settings.exports
        months = {export.name: export.months()[-count:] for export in exports}
        lake: list[LakeMonth] | None = None
        is_up = gauge("metrics_source_up", "Whether metrics of the source were read.", "source")

        def months_in_lake() -> Iterator[Metric]:
            nonlocal lake
            lake = read_lake_months(self._settings, months)
            yield from month_metrics(lake)

        def runs() -> Iterator[Metric]:
            with self.open_history() as history:
                if history.instance is not None:
                    recent = recent_history(history)
                    yield from RunMetrics(self._settings, recent, months, lake).metrics()

        sources: dict[str, Callable[[], Iterator[Metric]]] = {
            "lake": months_in_lake,
            "ledger": lambda: load_duration_metrics(self._settings, months),
            "budgets": lambda: budget_metrics(self._recent_budgets(months)),
            "dagster": runs,
        }
        for source, read in sources.items():
            metrics = self._read(source, read)
            is_up.add_metric([source], metrics is not None)
            yield from metrics or ()
        yield is_up
        at = gauge("metrics_timestamp_seconds", "When the metrics were read.")
        at.add_metric([], time.time())
        duration = gauge("metrics_duration_seconds", "Seconds that reading all metrics took.")
        duration.add_metric([], time.monotonic() - started)
        yield from (at, duration)

    def _read(self, source: str, read: Callable[[], Iterator[Metric]]) -> list[Metric] | None:
        """Return the metrics of a source; None if it cannot be read."""
        try:
            return list(read())
        # Dagster passes on the errors of its storage's client, which share no class.
        except Exception as error:
            self._on_problem(f"the metrics of {source} are left out: {first_line(error)}")
            return None

    def _recent_budgets(self, months: Months) -> list[BudgetMonth]:
        now = time.monotonic()
        if self._budgets is None or now - self._budgets[0] >= _SECONDS_OF_BUDGETS:
            self._budgets = now, read_budgets(self._settings, months)
        return self._budgets[1]
