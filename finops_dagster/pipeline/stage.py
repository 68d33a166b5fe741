"""The asset decorator of the stages, their results, and their failure messages."""

import gc
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar
from warnings import catch_warnings, simplefilter

import dagster as dg

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, ReconciliationError, escaped
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Version
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.object_stores import StoreError, StoreUnavailable
from finops_dagster.pipeline import FOCUS_STAGES
from finops_dagster.pipeline.checks import RECONCILES, Check
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import Metadata
from finops_dagster.pipeline.resources import RunOptions, StageRecords
from finops_dagster.processes import read_run_note, update_run_note
from finops_dagster.staging.folder import newer_version_message
from finops_dagster.traces import record_unexpected_error
from finops_dagster.warehouses.month_file import WarehouseUnavailable

Record = TypeVar("Record", bound=Manifest | Version)
Body = Callable[..., dg.MaterializeResult[Any] | Sequence[dg.AssetCheckResult]]
Event = dg.MaterializeResult[None] | dg.AssetCheckResult
_CHECKOUT = Path(__file__).parents[2]
_RETRIES = 3
_SECONDS_BETWEEN_RETRIES = 10


def stage(
    export: Export,
    name: str,
    *,
    kinds: set[str],
    checks: Sequence[Check] = (),
    deps: Sequence[dg.AssetDep] = (),
    options: Mapping[str, Any] = MappingProxyType({}),
    **upstream: str,
) -> Callable[[Body], dg.AssetsDefinition]:
    """Return a decorator that makes the body of the stage `name` an asset, partitioned by month.

    The body's docstring is the asset's description. `upstream` maps parameters of the body to
    stages: each receives the stored record of its stage and month, or None if there is none. The
    other parameters, after the context, are resources; `lake` must be one. `deps` are other assets
    that the stage reads, and `options` are further arguments of `dagster.asset`.

    An error of the body becomes a failure with a message of one line. Only a transient error is
    retried, three times. A ReconciliationError also fails the blocking check. A body with the
    option `output_required=False` may return only the results of its checks: then the month has
    nothing in this stage, and the next stage is skipped.
    """
    key = export.asset_key(name)
    with catch_warnings():
        # Partitioned checks are a preview feature of Dagster: they may change in a patch release,
        # which is one reason why its version is pinned.
        simplefilter("ignore", dg.PreviewWarning)
        check_specs = [
            dg.AssetCheckSpec(**vars(check), asset=key, partitions_def=export.partitions)
            for check in checks
        ]
    keys = {parameter: export.asset_key(previous) for parameter, previous in upstream.items()}
    records = export.resource_key("records")
    asset = partial(
        dg.asset,
        key=key,
        deps=[*keys.values(), *deps],
        partitions_def=export.partitions,
        # Without a policy a backfill is one run for each month too; this keeps it so.
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        group_name=export.settings.dagster_name,
        kinds=kinds,
        owners=[export.settings.owner],
        tags=_tags(export, name),
        check_specs=check_specs,
        **options,
    )
    blocking = next((check.name for check in checks if check.blocking), RECONCILES.name)

    def decorate(body: Body) -> dg.AssetsDefinition:
        parameters = [*inspect.signature(body).parameters][1:]
        resources = {p: export.resource_key(p) for p in parameters if p not in upstream}
        compute = _explain_failures(_with_records(body, keys, records), blocking, resources)
        with catch_warnings():
            simplefilter("ignore", dg.BetaWarning)  # of the backfill policy
            return asset(
                description=inspect.getdoc(body),
                metadata=_code_reference(body),
                required_resource_keys={records, *resources.values()},
            )(compute)

    return decorate


def _tags(export: Export, stage: str) -> dict[str, str]:
    """Return the tags by which selections find a stage: docs/reference.md lists them."""
    dataset = "charges" if stage in FOCUS_STAGES else "bill"
    return {
        "finops/export": export.name,
        "finops/vendor": export.settings.vendor,
        "finops/dataset": dataset,
    }


def _code_reference(body: Body) -> dict[str, Any]:
    """Return the metadata that leads from the UI to the stage's code.

    Empty where the package is installed: its files are no place to edit code in.
    """
    code = inspect.unwrap(body).__code__
    file = Path(code.co_filename)
    if not (_CHECKOUT / "pyproject.toml").is_file():
        return {}
    label = file.relative_to(_CHECKOUT).as_posix() if file.is_relative_to(_CHECKOUT) else file.name
    with catch_warnings():
        simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(
            file_path=str(file), line_number=code.co_firstlineno, label=label
        )
        value = dg.CodeReferencesMetadataValue(code_references=[reference])
    return {"dagster/code_references": value}


@dataclass(frozen=True)
class StageMonth:
    """One month of one stage, in a run or outside of any.

    With `force`, the stage does its work also where it has the version already.
    """

    export: Export
    stage: str
    month: BillingMonth
    instance: dg.DagsterInstance
    force: bool = False

    @classmethod
    def of_run(cls, context: dg.AssetExecutionContext, export: Export, options: RunOptions) -> Self:
        """Return the stage and the month that a run is executing, with the run's `force`."""
        stage, month = context.asset_key.path[-1], billing_month(context)
        return cls(export, stage, month, context.instance, options.force)

    @cached_property
    def last_materialization(self) -> dg.EventLogRecord | None:
        """Dagster's record of the month's last materialization, read once; None without one."""
        key, months = self.export.asset_key(self.stage), [str(self.month)]
        of_month = dg.AssetRecordsFilter(key, asset_partitions=months)
        return next(iter(self.instance.fetch_materializations(of_month, limit=1).records), None)

    def previous_metadata(self, manifest_id: str, *keys: str) -> dict[str, dg.MetadataValue[Any]]:
        """Return the values of `keys` in the metadata of the month's last materialization.

        Empty if that had another version than `manifest_id`. A run that changes nothing repeats
        them, because Dagster's UI shows only the last materialization.
        """
        event = (
            self.last_materialization.asset_materialization if self.last_materialization else None
        )
        if event is None or (event.tags or {}).get("dagster/data_version") != manifest_id:
            return {}
        return {key: event.metadata[key] for key in keys if key in event.metadata}


def stage_result(
    record: Record,
    outcome: str,
    metadata: Metadata,
    check_results: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult[Record]:
    """Return a stage's result: the record for the next stage, metadata, and results of checks.

    The version id of the record becomes Dagster's data version. `outcome` says what the stage did,
    such as `loaded` or `unchanged`; it is added to the metadata, and so is a summary of the checks.
    """
    failed = ", ".join(str(result.check_name) for result in check_results if not result.passed)
    # Dagster has no public function that returns the check results of a partition, so the metadata
    # carries them too.
    summary = {"checks": f"failed: {failed}" if failed else f"{len(check_results)} passed"}
    return dg.MaterializeResult(
        value=record,
        data_version=dg.DataVersion(
            record.id if isinstance(record, Manifest) else record.manifest_id
        ),
        metadata={"outcome": outcome, **metadata, **(summary if check_results else {})},
        check_results=check_results,
    )


def _with_records(
    body: Body, upstream: Mapping[str, dg.AssetKey], records_key: str
) -> Callable[..., Sequence[Event]]:
    """Wrap a body so that its parameters in `upstream` receive the records of these stages.

    The function returns what Dagster records: the result without its record, which
    `StageRecords` keeps, and the results of the checks. For a value that Dagster itself hands
    over it would write three events, and for a check without its asset it would look up the
    materialization twice.
    """

    def run(context: dg.AssetExecutionContext, **resources: object) -> Sequence[Event]:
        records: StageRecords = getattr(context.resources, records_key)
        key, month = context.asset_key, context.partition_key
        inputs = {name: records.get(stage, month) for name, stage in upstream.items()}
        result, events = body(context, **resources, **inputs), list[Event]()
        check_results = result
        if isinstance(result, dg.MaterializeResult):
            records.put(key, month, result.value)
            check_results = result.check_results
            events.append(
                dg.MaterializeResult(metadata=result.metadata, data_version=result.data_version)
            )
        for check in check_results:
            events.append(
                dg.AssetCheckResult(
                    passed=check.passed,
                    asset_key=key,
                    check_name=check.check_name,
                    metadata=check.metadata,
                    severity=check.severity,
                    description=check.description,
                )
            )
        return events

    return run


def _explain_failures(
    body: Callable[..., Sequence[Event]], blocking_check: str, resources: Mapping[str, str]
) -> Callable[..., Iterator[Event]]:
    """Wrap a body so that its errors become messages of one line, and its seconds metadata.

    `resources` maps its parameters to the keys of resources. A failed reconciliation also becomes a
    failed check. Permanent errors are not retried, transient ones are.
    """

    def run(context: dg.AssetExecutionContext) -> Iterator[Event]:
        started = time.monotonic()
        arguments = {name: getattr(context.resources, key) for name, key in resources.items()}
        lake: Lake = arguments["lake"]
        try:
            stage_lake, _ = _lake_of_stage(context, lake)
            file = stage_lake.file(context.asset_key.path[0], billing_month(context))
            file.record_version_at_start(context.run.run_id)
            events = body(context, **arguments)
        except ReconciliationError as error:
            message = f"{error}{_version_kept(context, lake)}"
            # Dagster records a check of a failed stage only if it was yielded before the error.
            yield dg.AssetCheckResult(
                passed=False,
                asset_key=context.asset_key,
                check_name=blocking_check,
                description=message,
            )
            _drop_traces(error)
            raise permanent_failure(error, message, check=blocking_check) from None
        except (BillError, StoreError) as error:
            _drop_traces(error)
            raise permanent_failure(error, f"{error}{_version_kept(context, lake)}") from None
        except Exception as error:
            raise _unexpected(context, error, _version_kept(context, lake)) from error
        context.add_asset_metadata({"seconds": round(time.monotonic() - started, 3)})
        yield from events

    return run


def _version_kept(context: dg.AssetExecutionContext, lake: Lake) -> str:
    """Return the end of a failure's message: the version in the lake, or nothing."""
    (export, stage), (stage_lake, name) = context.asset_key.path, _lake_of_stage(context, lake)
    try:
        footer = stage_lake.file(export, billing_month(context)).version()
    except (StoreError, StoreUnavailable):
        return ""  # The error itself says what the store answers.
    # When a warehouse's stage runs, the lake has the new version already, and BigQuery is only
    # measured after its commit: which version the warehouse has is not known here.
    if footer is None or stage.startswith("warehouse_"):
        return ""
    return f"; {name} keeps version {footer.manifest_id}"


def _lake_of_stage(context: dg.AssetExecutionContext, lake: Lake) -> tuple[Lake, str]:
    """Return the lake that has a stage's version of the month, and its name for messages."""
    if context.asset_key.path[-1] == "focus":
        return focus_lake(lake), "the file of charges"
    return lake, "the lake"


def _unexpected(
    context: dg.AssetExecutionContext, error: Exception, version_kept: str
) -> BaseException:
    """Return the exception to raise for an error that is not about the bill.

    A transient error is noted for `finops state show` if the stage is tried again.
    """
    home = Path(context.instance.root_directory)
    if isinstance(error, StoreUnavailable | WarehouseUnavailable):
        retry = retry_or_failure(context, error, f"run the month again later{version_kept}")
        if isinstance(retry, dg.RetryRequested):
            # A later stage may be tried again while this one waits, so each has its own error.
            retried = read_run_note(home, context.run.run_id).get("retried", {})
            retried[context.asset_key.path[-1]] = escaped(str(error))
            update_run_note(home, context.run.run_id, retried=retried)
        return retry
    if is_interrupt(error):
        return KeyboardInterrupt()
    message = memory_or_disk_problem(error) or record_unexpected_error(error, home)
    return permanent_failure(error, f"{message}{version_kept}")


def retry_or_failure(
    context: dg.AssetExecutionContext, error: Exception, advice: str
) -> dg.RetryRequested | dg.Failure:
    """Return the exception to raise for a transient error: a retry, which is logged.

    After three retries it is a failure, whose message ends with `advice`.
    """
    if context.retry_number == _RETRIES:
        return permanent_failure(error, f"{error}; tried {_RETRIES + 1} times; {advice}")
    context.log.warning(
        f"{escaped(str(error))}; trying again in {_SECONDS_BETWEEN_RETRIES} s "
        f"({context.retry_number + 1} of {_RETRIES})"
    )
    return dg.RetryRequested(_RETRIES, _SECONDS_BETWEEN_RETRIES)


def permanent_failure(error: Exception, message: str, **metadata: str) -> dg.Failure:
    """Return a failure that Dagster does not retry.

    Its metadata is `metadata` and, unless that has one, a `cause`: the name of the error's class.
    """
    metadata = {"cause": type(error).__name__, **metadata}
    return dg.Failure(escaped(message), metadata=metadata, allow_retries=False)


def _drop_traces(error: BaseException) -> None:
    """Delete the tracebacks of an error and of its causes, and what their frames refer to.

    Dagster keeps a step's failure and its causes until the process ends. DuckDB's objects must not
    live so long: its binding reports them as leaks on standard error.
    """
    current: BaseException | None = error
    while current is not None:
        current.__traceback__ = current.__cause__ = None
        current.__context__, current = None, current.__context__
    gc.collect()


def require_version(expected: str, current: str) -> None:
    """Raise ReconciliationError unless the previous stage still has the version it handed over.

    `expected` is the version id that was handed over, `current` the one that is stored. If they
    differ, another run has loaded a newer version, which this run must not replace by an older one.
    """
    if expected != current:
        raise ReconciliationError(newer_version_message(expected, current))


def month_command(command: str, export: Export, month: BillingMonth) -> str:
    """Return a command line for one month, for a message; `command` is such as `export-parquet`."""
    months = f"--start-date {month} --end-date {month}"
    return f"finops {export.settings.vendor} {command} --export {export.name} {months}"


def billing_month(context: dg.AssetExecutionContext) -> BillingMonth:
    """Return the billing month of the run's partition."""
    return BillingMonth.parse(context.partition_key)


def is_interrupt(error: Exception) -> bool:
    """Return whether Ctrl-C has stopped a statement of DuckDB, which raises a RuntimeError then."""
    return isinstance(error, RuntimeError) and str(error) == "Query interrupted"
