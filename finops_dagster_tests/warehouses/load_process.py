"""Replace one month in the warehouse in a process of its own, which can be killed midway.

python -m finops_dagster_tests.warehouses.load_process <settings as JSON> <month> killed|alive
"""

from __future__ import annotations

import os
import signal
import sys

from finops_dagster.billing import money
from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings import Settings


def main() -> None:
    """Print "ready", wait for a line on standard input, and load the month.

    With `killed`, the process kills itself between measuring and reconciling.
    """
    settings_json, month, end = sys.argv[1:]
    if end == "killed":
        # Patched before base.py imports the function by its name.
        money.reconcile = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)

    from finops_dagster.lake import FolderLake
    from finops_dagster.pipeline.export import Export
    from finops_dagster.pipeline.warehouse_table import month_file
    from finops_dagster.tables.database import DuckDB
    from finops_dagster.warehouses import DIALECTS, open_warehouse

    if "TESTS_DIALECT" in os.environ:
        DIALECTS["duckdb"] = os.environ["TESTS_DIALECT"]
    settings = Settings.model_validate_json(settings_json)
    lake = FolderLake(settings.storage.parquet_dir)
    file = month_file(Export(settings.exports[0]), BillingMonth.parse(month), lake, DuckDB())
    warehouse = open_warehouse(settings.database)

    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    warehouse.replace_month(file)


if __name__ == "__main__":
    main()
