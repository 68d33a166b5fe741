"""The code location that Dagster loads: the one of the settings in force."""

import gc

from finops_dagster.pipeline.build import build_definitions
from finops_dagster.processes import keep_files_private
from finops_dagster.settings import load_settings
from finops_dagster.settings_table import SettingsError

keep_files_private()
# What Dagster imports stays; to search it for garbage takes a tenth of a run that changes nothing.
gc.set_threshold(100_000)
try:
    defs = build_definitions(load_settings())
except SettingsError as error:
    raise SystemExit(str(error)) from None
