"""The code location that Dagster loads: importing this module reads the settings."""

import dagster as dg

from finops_dagster.processes import freeze_imports, raise_gc_threshold, set_private_umask
from finops_dagster.settings_table import SettingsError

set_private_umask()
raise_gc_threshold()
freeze_imports()

# They import DuckDB, which must not be frozen.
from finops_dagster.pipeline.build import build_definitions  # noqa: E402
from finops_dagster.settings import load_settings  # noqa: E402
from finops_dagster.upkeep import upkeep_definitions  # noqa: E402

try:
    settings = load_settings()
    defs = dg.Definitions.merge(build_definitions(settings), upkeep_definitions(settings))
except SettingsError as error:
    raise SystemExit(str(error)) from None
