"""The code location that Dagster loads: importing this module reads the settings."""

from finops_dagster.pipeline.build import build_definitions
from finops_dagster.processes import collect_garbage_seldom, keep_files_private
from finops_dagster.settings import load_settings
from finops_dagster.settings_table import SettingsError

keep_files_private()
collect_garbage_seldom()
try:
    defs = build_definitions(load_settings())
except SettingsError as error:
    raise SystemExit(str(error)) from None
