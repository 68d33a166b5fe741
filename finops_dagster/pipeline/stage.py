"""What all stages have in common: key, partitions, checks, and how errors are told."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import dagster as dg
import duckdb

from finops_dagster.billing.content import is_version_of
from finops_dagster.billing.disk import disk_problem
from finops_dagster.billing.errors import (
    BillError,
    ReconciliationError,
    escaped,
    first_line,
    for_people,
)
from finops_dagster.billing.money import Totals, plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import StoreError, StoreUnavailable
from finops_dagster.pipeline.checks import RECONCILES, Check
from finops_dagster.pipeline.export import Export
from finops_dagster.processes import going_on
from finops_dagster.traces import unforeseen
from finops_dagster.warehouses.base import WarehouseUnavailable

StageEvents = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]
_RETRIES = 3
_SECONDS_BETWEEN_RETRIES = 10


class RunOptions(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What a person may ask of one run, in its config:
    `resources: {run_options: {config: {force: true}}}`."""

    force: bool = False
    """Do every stage again, also where it holds the month already."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[RunOptions]:
        """Hold the run's lock from its first stage to its last, also where Dagster began it, and
        keep the connections to the history that it writes."""
        # Not at the top: SQLAlchemy takes half a second, and only runs need it.
        from finops_dagster.pipeline.sqlite_history import keep_connections

        assert context.instance is not None
        assert context.run is not None
        keep_connections(context.instance)
        with going_on(Path(context.instance.root_directory), context.run.run_id):
            yield self


def stage(
    export: Export,
    *,
    after: str | None = None,
    kinds: set[str],
    checks: Sequence[Check] = (),
) -> Callable[[Callable[..., StageEvents]], dg.AssetsDefinition]:
    """Make the decorated function a stage of the export, named and described by itself.

    A BillError or a store's no becomes a failure that is not retried; a network fault is retried;
    a failed reconciliation is also told as a failed check. What a stage yields is computed before
    it commits; only the seconds that it took are added after.
    """

    def made(body: Callable[..., StageEvents]) -> dg.AssetsDefinition:
        key = export.key(body.__name__)

        @functools.wraps(body)
        def told(context: dg.AssetExecutionContext, **resources: object) -> StageEvents:
            reconciles = RECONCILES in checks
            yield from _with_failures(
                context, _with_seconds(body(context, **resources)), reconciles=reconciles
            )

        return dg.asset(
            key=key,
            deps=[export.key(after)] if after else [],
            partitions_def=export.partitions,
            group_name=export.settings.group,
            kinds=kinds,
            owners=["team:finops"],
            tags={"finops/export": export.name},
            check_specs=_check_specs(export, key, checks),
        )(told)

    return made


def _check_specs(
    export: Export, key: dg.AssetKey, checks: Sequence[Check]
) -> list[dg.AssetCheckSpec]:
    with catch_warnings():
        # Checks by partition are a preview of Dagster's: they may change in a patch release, which
        # is one reason why its version is pinned.
        simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                check.name,
                asset=key,
                description=check.description,
                blocking=check.blocking,
                partitions_def=export.partitions,
            )
            for check in checks
        ]


def _with_failures(
    context: dg.AssetExecutionContext, events: StageEvents, *, reconciles: bool
) -> StageEvents:
    """Yield the stage's events, and raise its errors as Dagster shows them: a sentence each."""
    try:
        yield from events
    except ReconciliationError as error:
        if reconciles:
            yield dg.AssetCheckResult(
                passed=False,
                asset_key=context.asset_key,
                check_name=RECONCILES.name,
                description=str(error),
            )
        raise _failure(error, str(error)) from None
    except (BillError, StoreError) as error:
        raise _failure(error, str(error)) from None
    except duckdb.OutOfMemoryException as error:
        told = (
            "the month takes more memory than DuckDB may have; set database.duckdb.memory_limit "
            f"higher or database.duckdb.threads lower ({first_line(error)})"
        )
        raise _failure(error, told) from error
    except (StoreUnavailable, WarehouseUnavailable) as error:
        if context.retry_number == _RETRIES:
            raise _failure(error, f"{error}; tried {_RETRIES + 1} times") from error
        context.log.warning(
            f"{escaped(str(error))}; trying again in {_SECONDS_BETWEEN_RETRIES} s "
            f"({context.retry_number + 1} of {_RETRIES})"
        )
        raise dg.RetryRequested(_RETRIES, _SECONDS_BETWEEN_RETRIES) from error
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            raise KeyboardInterrupt from None  # what DuckDB makes of Ctrl-C
        home = Path(context.instance.root_directory)
        raise _failure(error, disk_problem(error) or unforeseen(error, home)) from error


def _failure(error: Exception, told: str) -> dg.Failure:
    """A failure that no retry cures; `cause` is what `finops state report` counts it under."""
    return dg.Failure(escaped(told), metadata={"cause": type(error).__name__}, allow_retries=False)


def _with_seconds(events: StageEvents) -> StageEvents:
    started = time.monotonic()
    for event in events:
        if isinstance(event, dg.MaterializeResult):
            seconds = round(time.monotonic() - started, 3)
            event = event._replace(metadata={"seconds": seconds, **(event.metadata or {})})
        yield event


def hold_to_one_version(context: dg.AssetExecutionContext, version: str) -> None:
    """Compare the version that the stage is about to make with the one that this run began with, or
    else with the one that the stage before it holds. Call it before the stage commits. Raises
    ReconciliationError where another run has brought a newer one since."""
    export, *_ = context.asset_key.path
    (after,) = context.assets_def.asset_deps[context.asset_key]
    stage_before, before = _version_before(context, after)
    # The manifest has the vendor's id, the stages after it the version that its files are.
    is_same = is_version_of(version, before) if stage_before == "manifest" else version == before
    if before and not is_same:
        raise ReconciliationError(
            RECONCILES.name,
            f"{export} {context.partition_key} is at {version} here, but {after.path[-1]} was at "
            f"{before}: another run has brought a newer version meanwhile; run the month again",
        )


def _version_before(context: dg.AssetExecutionContext, after: dg.AssetKey) -> tuple[str, str]:
    """The stage that this run did last, or else the one before this, and its version; empty where
    it has none."""
    of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    told = context.instance.get_records_for_run(context.run.run_id, of_type=of_type).records
    if not told:
        wanted = dg.AssetRecordsFilter(after, asset_partitions=[context.partition_key])
        told = context.instance.fetch_materializations(wanted, limit=1).records
    event = told[-1].asset_materialization if told else None
    if event is None:
        return "", ""
    return event.asset_key.path[-1], (event.tags or {}).get("dagster/data_version", "")


def kept_metadata(
    context: dg.AssetExecutionContext, version: str, *names: str
) -> dict[str, dg.MetadataValue[Any]]:
    """Return what the stage said last of this version under these names, so that a run which
    changes nothing says it again and it stays on the month's page."""
    wanted = dg.AssetRecordsFilter(context.asset_key, asset_partitions=[context.partition_key])
    records = context.instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    if event is None or (event.tags or {}).get("dagster/data_version") != version:
        return {}
    return {name: event.metadata[name] for name in names if name in event.metadata}


def version_metadata(manifest_id: str, totals: Totals) -> dict[str, str | int | float]:
    """What every stage that holds the month says of it; the UI plots the numbers over months."""
    return {
        "manifest_id": manifest_id,
        "dagster/partition_row_count": totals.rows,
        "total_cost": float(totals.cost),
        "total_cost_exact": plain(totals.cost),
    }


def warnings(told: Sequence[str]) -> dict[str, dg.MetadataValue[Any]]:
    """What somebody should know of columns, as a list where there is any."""
    lines = "\n".join(f"- {escaped(one)}" for one in told)
    return {"warnings": dg.MetadataValue.text(lines)} if told else {}


_PLAIN_WORDS = re.compile(r"(?:[A-Za-z0-9 -]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))*")


def markdown(text: str) -> str:
    """Return text from outside such that Markdown shows it as it is, also in a cell of a table:
    what is more than plain words becomes code, in which nothing but a backtick has a meaning."""
    code = for_people(text).replace("|", r"\x7c")
    if _PLAIN_WORDS.fullmatch(text):
        return code
    fence = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    pad = " " if {code[0], code[-1]} & {" ", "`"} else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def month_of(context: dg.AssetExecutionContext) -> BillingMonth:
    """The run's billing month."""
    return BillingMonth.parse(context.partition_key)
