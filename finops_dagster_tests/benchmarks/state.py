"""What state costs: commands that read it, with the history of 10 exports of 36 months."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import dagster as dg
import duckdb

from finops_dagster.billing.money import Totals
from finops_dagster.billing.version import Load
from finops_dagster.lake import Lake, exporting_month
from finops_dagster.pipeline import STAGES
from finops_dagster.settings import load_settings
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.tables import ledger
from finops_dagster_tests.benchmarks.chain import YEARS, Chain, Figure, Run, small_months

_EXPORTS, _MONTHS, _COLUMNS = 10, len(YEARS), 150
_EVENT = {
    "metadata": {"outcome": "loaded", "seconds": 1.5, "dagster/partition_row_count": 1},
    "tags": {"dagster/data_version": "v1"},
}
_COMMANDS = {
    "state loaded": 1,
    "state list": 2,  # with columns of runs and failures
    "aws show-state": 2,
    "state show bench 2024-01": None,
    "state report": None,
    "state export state.json": None,
}


def state(_: int, runs: int) -> Iterator[Figure]:
    """Whole processes, in a project whose months were all loaded once."""
    chain = Chain.over(small_months(), exports=_EXPORTS)
    _make_history(chain)
    for command, most in _COMMANDS.items():
        run = Run.median(chain.finops(*command.split()) for _ in range(runs))
        yield run.figure(f"finops {command}, {_EXPORTS} exports of {_MONTHS} months", most)


def _make_history(chain: Chain) -> None:
    """Write events, ledger, and small Parquet files of many columns."""
    settings = load_settings(chain.work / "finops.toml")
    months = settings.exports[0].months()[:_MONTHS]
    names = ", ".join(f"{number} AS column_{number}" for number in range(_COLUMNS))
    totals = Totals(1, Decimal("1.5"))
    with (
        dg.DagsterInstance.get() as instance,
        duckdb.connect(str(chain.work / "finops.duckdb")) as connection,
    ):
        ledger.create_tables(connection)
        for name, table in ((each.name, each.table_name) for each in settings.exports):
            connection.execute(
                f"CREATE TABLE {table} AS SELECT unnest(generate_series(DATE "
                f"'{months[0].first_day}', DATE '{months[-1].first_day}', INTERVAL 1 MONTH))::DATE "
                f"AS billing_month, 'v1' AS manifest_id, {names}, "
                "1.5::DECIMAL(38,18) AS lineitem_unblendedcost"
            )
            for month in months:
                load = Load("v1", totals, export=name, month=month, table=table)
                ledger.record_load(connection, load, 1.0)
                path = Lake(chain.work / "parquet").path(name, month)
                with exporting_month(connection, load, path, AwsCur1()):
                    pass
                for stage in STAGES[:4]:
                    event = dg.AssetMaterialization([name, stage], partition=str(month), **_EVENT)
                    instance.report_runless_asset_event(event)
