"""`finops state import`: restore the state of months that another machine has exported.

A child process restores the ledgers. Once it has ended, this process imports Dagster, and records
materializations. So DuckDB's cache and Dagster are never in memory together.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.options import Options

# The settings, and all that needs them, import DuckDB: not before the child has ended.
if TYPE_CHECKING:
    import dagster as dg

    from finops_dagster.cli.state_file import Stage
    from finops_dagster.pipeline.history import Materialization
    from finops_dagster.pipeline.observations import StageChange

# It gets the search path of this process as arguments. Ctrl-C ends it without a trace.
_CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path[:] = sys.argv[1:]
from finops_dagster.cli.ledger_import import main
main()
"""


@dataclass(frozen=True)
class ConfirmedMonth:
    """A month of the file with the last materializations that the data confirms, at least one."""

    export: str
    month: str
    stages: dict[Stage, Materialization]
    change: StageChange | None
    """What was recorded in the ledger; None if it lacked nothing."""


@dataclass(frozen=True)
class RestoredLedgers:
    """The months of a file, grouped by export, and a line for each export or stage refused."""

    months: list[ConfirmedMonth]
    refused: list[str]


def restore_ledgers_in_child(options: Options, file: Path) -> RestoredLedgers:
    """Restore the ledgers in a child process, which has ended when this returns.

    Raises BillError with the line of any error there, and if the child is killed.
    """
    command = [sys.executable, "-P", "-c", _CHILD, *sys.path]
    request = pickle.dumps((options, file))
    child = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=False)
    if child.returncode != 0:
        raise BillError(
            f"the process that restores the ledgers from {file} has ended too early with exit code "
            f"{child.returncode} (-9 is often a lack of memory); each DuckDB file has all of its "
            "months or is as before; run the same command again"
        )
    result: RestoredLedgers | str = pickle.loads(child.stdout)
    if isinstance(result, str):
        raise BillError(result)
    return result


def record_materializations(
    months: Iterable[ConfirmedMonth], on_month: Callable[[str, StageChange | None], None]
) -> None:
    """Record the materializations of the months, grouped by export, in Dagster's event log.

    A stage is skipped if its newest event in the log has the same version. `on_month` is called
    after each month: with a line to print, and the change of its ledger or None. Raises
    SettingsError if Dagster cannot open its storage.
    """
    from finops_dagster.pipeline.history import History
    from finops_dagster.pipeline.instance import open_instance

    with open_instance() as instance:
        for export, group in groupby(months, lambda month: month.export):
            export_months = list(group)
            logged = History(instance).materializations(export, [m.month for m in export_months])
            for month in export_months:
                for stage, imported in month.stages.items():
                    recorded = logged[stage].get(month.month)
                    if recorded is None or recorded.version != imported.version:
                        _report(instance, [export, stage], month.month, imported)
                on_month(f"{export} {month.month}: {', '.join(month.stages)}", month.change)


def _report(
    instance: dg.DagsterInstance, key: list[str], month: str, imported: Materialization
) -> None:
    import dagster as dg

    # The run is not in the event log of this machine, so the event has none.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=dg.AssetKey(key),
            partition=month,
            description=f"Imported; recorded by run {imported.run_id} at {imported.at}.",
            metadata=imported.metadata,
            tags={"dagster/data_version": str(imported.version)},
        )
    )
