"""A project in a folder of its own, for tests: deliver a version, run the stages, query."""

import os
from collections import Counter
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStore, ObjectStores
from finops_dagster.pipeline.build import build_definitions, build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import Settings
from finops_dagster.sources.base import ManifestOrError, Source
from finops_dagster_tests.cur import Part, Put, bucket_put, deliver, folder_put, line_items
from finops_dagster_tests.servers.s3 import S3Server

STAGES = ("manifest", "staged_files", "billing_table", "parquet")
UNCHANGED = dict.fromkeys(STAGES, "unchanged")
ROOT = Path(__file__).parents[1]
SETTINGS = """
[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "file://source"
export_name = "acme-cur"
start_month = "2024-01"
table = "aws_billing_data"
"""


class MonthRun:
    """A finished run of the stages of one month."""

    def __init__(self, result: dg.ExecuteInProcessResult) -> None:
        self.success, self.run_id = result.success, result.run_id
        self._result = result
        self._materializations = {
            event.asset_key.path[-1]: event.materialization
            for event in result.get_asset_materialization_events()
        }

    @property
    def error(self) -> str:
        """The message of the one step that failed, without the name of the error's class."""
        failures = [e for e in self._result.all_events if e.event_type_value == "STEP_FAILURE"]
        assert len(failures) == 1, failures
        _, _, message = failures[0].step_failure_data.error.message.partition(": ")
        return message.strip()

    def metadata(self, stage: str) -> dict[str, Any]:
        """Return the metadata of a stage's materialization, as plain values."""
        return {name: cell.value for name, cell in self._materializations[stage].metadata.items()}

    def stages(self) -> list[str]:
        """Return the stages in the order in which they were materialized."""
        return list(self._materializations)

    def outcomes(self) -> dict[str, str]:
        return {stage: str(self.metadata(stage)["outcome"]) for stage in self._materializations}

    def events(self) -> Counter[str]:
        """Return how many events of each type the run wrote."""
        return Counter(event.event_type_value for event in self._result.all_events)

    def retries(self) -> int:
        return self.events()["STEP_UP_FOR_RETRY"]

    def data_versions(self) -> set[str]:
        """Return the data versions that the stages recorded."""
        tags = (materialization.tags or {} for materialization in self._materializations.values())
        return {tag["dagster/data_version"] for tag in tags}

    def checks(self) -> dict[str, bool]:
        """Return whether each check passed, by `stage.check`."""
        return {
            f"{e.asset_key.path[-1]}.{e.check_name}": e.passed
            for e in self._result.get_asset_check_evaluations()
        }

    def check_descriptions(self) -> dict[str, str]:
        """Return the text of each check's result, by the name of the check."""
        evaluations = self._result.get_asset_check_evaluations()
        return {e.check_name: e.description or "" for e in evaluations}


def requested_months(result: dg.SensorResult) -> list[str | None]:
    """Return the months whose runs a sensor requests."""
    return [request.partition_key for request in result.run_requests or []]


class Project:
    """A folder with a source and data, its settings, and an in-memory Dagster instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.put: Put = folder_put(self.source)
        self.export: dict[str, Any] = {
            "name": "acme",
            "vendor": "aws",
            "format": "cur1",
            "source": f"file://{self.source}",
            "export_name": "acme-cur",
            "start_month": "2023-01",
            "table": "aws_billing_data",
        }
        self.more_exports: list[dict[str, Any]] = []
        self.storage: dict[str, Any] = {}
        self.database: dict[str, Any] = {}
        self.alerts: dict[str, Any] | None = None
        self.run_sizes: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.catalog: dict[str, Any] | None = None
        self._built: tuple[dict[str, Any], dg.Definitions] | None = None

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The in-memory instance, created at the first use, which takes 0.1 s."""
        return dg.DagsterInstance.ephemeral()

    def shell_environment(self, more_settings: str = "") -> dict[str, str]:
        """Write a settings file of the first export, and return the environment of a shell for it.

        The export starts in 2024-01 and lies in the folder `source`, whatever `export` says.
        """
        (self.folder / "finops.toml").write_text(SETTINGS + more_settings)
        environment = {"FINOPS_CONFIG": "finops.toml", "PYTHONPATH": str(ROOT)}
        return {**os.environ, **environment, "DAGSTER_DISABLE_TELEMETRY": "yes"}

    def add_export(self, **settings: Any) -> None:
        """Add an export that differs from the first one in these settings."""
        self.more_exports.append({**self.export, **settings})

    def use_bucket(self, s3: S3Server, bucket: str) -> None:
        """Make a bucket the source of the first export, which `put` and `deliver` write to."""
        self.export |= {"source": f"s3://{bucket}", "endpoint_url": s3.url}
        self.put = bucket_put(s3, bucket)

    def deliver(
        self, *parts: str | Part, month: str = "2024-01", version: str = "v1", **delivery: Any
    ) -> list[str]:
        """Deliver a version of a month, and return the keys of its files.

        The parts are either all texts, the costs of the line items of one file, or else each part
        is a file. `delivery` are further arguments of `cur.deliver`.
        """
        costs = [part for part in parts if isinstance(part, str)]
        files = [line_items(month, *costs)] if costs else parts
        return deliver(self.put, month, files, version=version, **delivery)

    def settings(self) -> Settings:
        names = ("storage", "database", "catalog", "alerts", "metrics", "run_sizes")
        tables = {name: getattr(self, name) for name in names}
        return Settings.model_validate(tables | {"exports": [self.export, *self.more_exports]})

    def definitions(self) -> dg.Definitions:
        settings = self.settings()
        # Settings that are equal are of classes of their own, and so are never equal to Python.
        values = settings.model_dump()
        if self._built is None or self._built[0] != values:
            self._built = values, build_definitions(settings)
        return self._built[1]

    def first_export(self) -> Export:
        """Return the first export, as the stages use it."""
        return Export(self.settings().exports[0])

    def first_store(self) -> tuple[ObjectStore, str]:
        """Return the first export's store, and its prefix there."""
        return ObjectStores().open(self.settings().exports[0])

    def available_versions(self) -> dict[BillingMonth, ManifestOrError]:
        """Return the newest manifest, or an error, of each month of the first export."""
        export = self.first_export()
        return self.source_of(export).newest_manifests(export.months())

    def source_of(self, export: Export) -> Source:
        """Return the source of an export, with the project's staging folder, lake and ledger."""
        stored = build_resources(self.settings())
        return export.source(ObjectStores(), stored.staging, stored.lake, stored.database)

    def tick(self, cursor: str | None = None, sensor: str = "acme_manifests") -> dg.SensorResult:
        """Evaluate a sensor once, and return its result; no run is started."""
        definitions = self.definitions()
        names = ("stores", "staging", "lake", "database")
        context = dg.build_sensor_context(
            self.instance,
            cursor=cursor,
            definitions=definitions,
            resources={name: (definitions.resources or {})[name] for name in names},
        )
        result = definitions.get_sensor_def(sensor)(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def materialize(
        self,
        month: str = "2024-01",
        *,
        export: str = "acme",
        force: bool = False,
        stages: list[str] | None = None,
    ) -> MonthRun:
        """Run all stages of a month, or `stages`; a failure is in the returned run."""
        definitions = self.definitions()
        keys = definitions.resolve_asset_graph().get_all_asset_keys()
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=month,
            asset_selection=[
                key
                for key in keys
                if key.path[0] == export and (stages is None or key.path[-1] in stages)
            ],
            instance=self.instance,
            raise_on_error=False,
            run_config={"resources": {"run_options": {"config": {"force": force}}}},
        )
        return MonthRun(result)

    def load(self, month: str = "2024-01", **options: Any) -> MonthRun:
        """Run the stages of one month, and assert that they succeed."""
        run = self.materialize(month, **options)
        assert run.success, run.error
        return run

    def load_refused_version(self, month: str, *parts: Part, **delivery: Any) -> MonthRun:
        """Assert that a version of these parts is refused, and return its run.

        A month of one line item that costs 1 is loaded first, and must stay as it is.
        """
        if not self.parquet_path(month).exists():
            self.deliver("1", month=month)
            self.load(month)
        self.deliver(*parts, month=month, version="v2", **delivery)
        run = self.materialize(month)
        assert not run.success
        assert (self.totals(month), self.parquet_totals(month)) == ((1, 1), (1, 1))
        assert not list(self.folder.rglob("*.part*"))
        return run

    @property
    def database_file(self) -> Path:
        """The path of the DuckDB file, in a folder that exists."""
        (self.folder / "data").mkdir(exist_ok=True)
        return self.folder / "data/finops.duckdb"

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.database_file), read_only=True) as connection:
            return connection.execute(sql, parameters).fetchall()

    def execute(self, *statements: str) -> None:
        with duckdb.connect(str(self.database_file)) as connection:
            for statement in statements:
                connection.execute(statement)

    def ledger(self, columns: str = "manifest_id, state") -> list[tuple[Any, ...]]:
        """Return columns of the ledger's versions, in the order of their loads."""
        return self.query(f"SELECT {columns} FROM finops_state.manifests ORDER BY load_number")

    def column(self, name: str, month: str = "2024-01") -> list[Any]:
        """Return the values of a column in one month of the table, sorted."""
        where = f"WHERE billing_month = '{month}-01'"
        rows = self.query(f'SELECT "{name}" FROM aws_billing_data {where} ORDER BY 1')
        return [cell for (cell,) in rows]

    def totals(self, month: str = "2024-01") -> tuple[int, Decimal | None]:
        totals = "SELECT count(*), sum(lineitem_unblendedcost) FROM aws_billing_data"
        (row,) = self.query(f"{totals} WHERE billing_month = '{month}-01'")
        return row

    def parquet_path(self, month: str = "2024-01", export: str = "acme") -> Path:
        return self.folder / f"data/parquet/{export}/billing_month={month}/{export}-{month}.parquet"

    def focus_path(self, month: str = "2024-01") -> Path:
        """Return the path of the month's charges."""
        folder = self.folder / "data/parquet/focus/acme"
        return folder / f"billing_month={month}/acme-{month}.parquet"

    def parquet_scan(self, month: str = "2024-01") -> str:
        return f"read_parquet('{self.parquet_path(month)}', hive_partitioning = false)"

    def parquet_totals(self, month: str = "2024-01") -> tuple[int, Decimal | None]:
        totals = f"SELECT count(*), sum(lineitem_unblendedcost) FROM {self.parquet_scan(month)}"
        (row,) = duckdb.sql(totals).fetchall()
        return row
