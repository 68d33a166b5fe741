"""`finops dev`: the Dagster UI and its daemon with the sensors, on this machine only."""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

from finops_dagster.billing.errors import BillError
from finops_dagster.cli.options import Options
from finops_dagster.pipeline.instance import open_instance
from finops_dagster.settings import settings_file

_HOST = "127.0.0.1"
# Dagster recommends `dg dev`, which needs a project in its own layout.
_SUPERSEDED = "ignore:Function `dev_command` is superseded"


def exec_dagster_dev(options: Options, port: int) -> NoReturn:
    """Replace this process by `dagster dev`, which gets the settings in environment variables.

    Creates `dagster.yaml` in DAGSTER_HOME if it is missing. Raises SettingsError, and BillError if
    the port cannot be used; nothing is started then.
    """
    backend = options.settings().database.backend
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise BillError(
            f"port {port} of {_HOST} cannot be used ({os.strerror(error.errno or 0)}); stop the "
            "program that uses it, or choose another: finops dev --port 3001, make dev PORT=3001"
        ) from error
    # Creates dagster.yaml and sets DAGSTER_HOME, for the processes that `dagster dev` starts.
    open_instance().dispose()
    # Dagster starts processes of its own, which read the settings from the environment.
    os.environ["FINOPS_CONFIG"] = str(settings_file(options.config))
    if options.backend:
        os.environ["OPEN_FINOPS_DATABASE_BACKEND"] = backend
    for key, _, value in (pair.partition("=") for pair in options.database_config):
        os.environ[f"FINOPS_DATABASE__{backend}__{key}".upper()] = value
    command = [sys.executable, "-W", _SUPERSEDED, "-m", "dagster", "dev"]
    command += ["-m", "finops_dagster.definitions", "--host", _HOST, "--port", str(port)]
    os.execv(sys.executable, command)
