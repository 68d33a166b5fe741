"""What all stages have in common: their declaration, their result, and how errors are shown."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from warnings import catch_warnings, simplefilter

import dagster as dg
import duckdb

from finops_dagster.billing.disk import disk_problem
from finops_dagster.billing.errors import BillError, ReconciliationError, escaped, first_line
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Version
from finops_dagster.object_stores import StoreError, StoreUnavailable
from finops_dagster.pipeline.checks import RECONCILES, Check
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import Metadata
from finops_dagster.processes import write_note
from finops_dagster.staging.folder import newer_version_message
from finops_dagster.traces import record_unexpected_error
from finops_dagster.warehouses.month_file import WarehouseUnavailable

Record = TypeVar("Record", bound=Manifest | Version)
Body = Callable[..., dg.MaterializeResult[Any]]
Events = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]
_RETRIES = 3
_SECONDS_BETWEEN_RETRIES = 10


def stage(
    export: Export, name: str, *, kinds: set[str], checks: Sequence[Check] = (), **before: str
) -> Callable[[Body], dg.AssetsDefinition]:
    """Decorate the body of a stage as an asset by month. `before` names parameters of the body, and
    for each the stage whose record it is given."""
    key = export.key(name)
    with catch_warnings():
        # Checks by partition are a preview of Dagster's: they may change in a patch release, which
        # is one reason why its version is pinned.
        simplefilter("ignore", dg.PreviewWarning)
        check_specs = [
            dg.AssetCheckSpec(**vars(check), asset=key, partitions_def=export.partitions)
            for check in checks
        ]
    asset = dg.asset(
        key=key,
        ins={parameter: dg.AssetIn(export.key(of)) for parameter, of in before.items()},
        partitions_def=export.partitions,
        group_name=export.settings.group,
        kinds=kinds,
        owners=["team:finops"],
        tags={"finops/export": export.name},
        check_specs=check_specs,
        io_manager_key="records",
    )
    return lambda body: asset(_showing_failures(body))


def materialized(
    record: Record, outcome: str, metadata: Metadata, checks: Sequence[dg.AssetCheckResult] = ()
) -> dg.MaterializeResult[Record]:
    """Return a stage's result, with the record for the stage after it. No public function of
    Dagster's can be asked how the checks of a month ended, so the metadata has that too."""
    failed = ", ".join(str(check.check_name) for check in checks if not check.passed)
    ended = {"checks": f"failed: {failed}" if failed else f"{len(checks)} passed"}
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(
            record.id if isinstance(record, Manifest) else record.manifest_id
        ),
        metadata={"outcome": outcome, **metadata, **(ended if checks else {})},
        check_results=checks,
    )


def _showing_failures(body: Body) -> Callable[..., Events]:
    """Let the body's errors be shown as a sentence each, and its seconds be kept.

    A failed reconciliation is also shown as a failed check. A BillError or a store's refusal is a
    failure that is not retried, a network fault is retried.
    """

    @functools.wraps(body)
    def run(context: dg.AssetExecutionContext, **inputs: object) -> Events:
        started = time.monotonic()
        try:
            result = body(context, **inputs)
        except ReconciliationError as error:
            yield dg.AssetCheckResult(
                passed=False,
                asset_key=context.asset_key,
                check_name=RECONCILES.name,
                description=str(error),
            )
            _drop_traces(error)
            raise _failure(error, str(error), check=RECONCILES.name) from None
        except (BillError, StoreError) as error:
            _drop_traces(error)
            raise _failure(error, str(error)) from None
        except Exception as error:
            raise _unexpected(context, error) from error
        context.add_asset_metadata({"seconds": round(time.monotonic() - started, 3)})
        yield result

    return run


def _unexpected(context: dg.AssetExecutionContext, error: Exception) -> BaseException:
    """Return what Dagster is to make of an error that is not the bill's."""
    home = Path(context.instance.root_directory)
    if isinstance(error, StoreUnavailable | WarehouseUnavailable):
        if context.retry_number == _RETRIES:
            return _failure(error, f"{error}; tried {_RETRIES + 1} times")
        message = escaped(str(error))
        write_note(home, context.run.run_id, retry=[context.asset_key.path[-1], message])
        context.log.warning(
            f"{message}; trying again in {_SECONDS_BETWEEN_RETRIES} s "
            f"({context.retry_number + 1} of {_RETRIES})"
        )
        return dg.RetryRequested(_RETRIES, _SECONDS_BETWEEN_RETRIES)
    if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
        return KeyboardInterrupt()  # what DuckDB makes of Ctrl-C
    if isinstance(error, duckdb.OutOfMemoryException):
        return _failure(
            error,
            "the month takes more memory than DuckDB may have; set database.duckdb.memory_limit "
            f"higher or database.duckdb.threads lower ({first_line(error)})",
        )
    return _failure(error, disk_problem(error) or record_unexpected_error(error, home))


def _failure(error: Exception, message: str, **metadata: str) -> dg.Failure:
    """A failure that no retry cures; `cause` is what `finops state report` counts it under."""
    metadata = {"cause": type(error).__name__, **metadata}
    return dg.Failure(escaped(message), metadata=metadata, allow_retries=False)


def _drop_traces(error: BaseException) -> None:
    """Delete what the frames of an error whose message says all still refer to.

    Dagster keeps a step's failure, and the errors before it, until the process ends. DuckDB's
    objects must not live so long: its binding reports them as leaks on standard error.
    """
    before: BaseException | None = error
    while before is not None:
        before.__traceback__ = before.__cause__ = None
        before.__context__, before = None, before.__context__
    gc.collect()


def require_version(expected: str, here: str) -> None:
    """Raise ReconciliationError where the stage before holds another version than it handed over:
    to go on would load the older one over the newer."""
    if expected != here:
        raise ReconciliationError(newer_version_message(expected, here))


def metadata_of_version(
    context: dg.AssetExecutionContext, version: str, *names: str
) -> dict[str, dg.MetadataValue[Any]]:
    """Return what the stage's page has of this version under these names, so that a run which
    changes nothing keeps it on the page."""
    wanted = dg.AssetRecordsFilter(context.asset_key, asset_partitions=[context.partition_key])
    records = context.instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    if event is None or (event.tags or {}).get("dagster/data_version") != version:
        return {}
    return {name: event.metadata[name] for name in names if name in event.metadata}


def month_of(context: dg.AssetExecutionContext) -> BillingMonth:
    """Return the run's billing month."""
    return BillingMonth.parse(context.partition_key)
