"""Dagster's instance in DAGSTER_HOME: the storage of runs and events."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from pathlib import Path

import dagster as dg

from finops_dagster.billing.errors import causes, first_line
from finops_dagster.pipeline.postgres_driver import check_driver
from finops_dagster.processes import instance_lock, lost_runs, remove_run_lock
from finops_dagster.settings import dagster_home
from finops_dagster.settings_table import SettingsError

_DEFAULT_CONFIG = Path(__file__).parent.parent / "dagster.yaml"
_UNSET_VARIABLE = re.compile(r'environment variable "(\w+)" which is not set')


def open_instance() -> dg.DagsterInstance:
    """Open Dagster's instance in DAGSTER_HOME; use it in a `with` statement, which closes it.

    Sets the environment variable DAGSTER_HOME if it is not set. On first use, writes `dagster.yaml`
    there: a copy of the file in the working directory, or else of the package's. Takes the instance
    lock, which the caller must not hold. Raises SettingsError for a PostgreSQL driver that Dagster
    cannot use, and for a storage that it cannot open; for SQLite, whatever Dagster raises.
    """
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(dagster_home())))
    # Two processes that create Dagster's SQLite files at the same time damage them for good.
    with instance_lock(home):
        config_file = home / "dagster.yaml"
        if not config_file.exists():
            local, part = Path("dagster.yaml"), home / "dagster.yaml.part"
            part.write_text((local if local.is_file() else _DEFAULT_CONFIG).read_text())
            part.replace(config_file)
        check_driver(config_file)
        # Dagster would print several lines for each try to connect to a database.
        logging.disable(logging.WARNING)
        try:
            return dg.DagsterInstance.get()
        except Exception as error:  # each storage raises errors of its own
            *_, cause = causes(error)
            if isinstance(cause, sqlite3.Error):  # the disk is full, or a file is damaged
                raise
            problem = _unset_variable(error) or first_line(cause)
            raise SettingsError(
                f"{config_file}: Dagster cannot open the storage of its history: {problem}; start "
                "its database, or correct this file"
            ) from error
        finally:
            logging.disable(logging.NOTSET)


def _unset_variable(error: BaseException) -> str | None:
    unset = _UNSET_VARIABLE.search(str(error))
    return f"the environment variable {unset[1]} is not set" if unset else None


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the lost runs that Dagster shows as in progress, and return their ids.

    Deletes the lock files and notes of all lost runs of this machine. A lost run would otherwise
    occupy a place in Dagster's queue. Takes the instance lock, which the caller must not hold.
    """
    home, run_ids = Path(instance.root_directory), []
    with instance_lock(home):
        for run_id in lost_runs(home):
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(
                    run, "The process of this run is gone; run the month again."
                )
                run_ids.append(run_id)
            remove_run_lock(home, run_id)
    return run_ids
