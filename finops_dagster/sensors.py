"""One sensor an export: notices new and restated months by the versions of their manifests."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from finops_dagster.assets.export import Export
from finops_dagster.assets.manifest import read_manifest
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.resources.object_stores import (
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)

_REQUESTS_AT_ONCE = 16


def manifest_sensor(export: Export) -> dg.SensorDefinition:
    """Asks for a run of every month whose manifest is new or was rewritten since the last look.

    The cursor is JSON, `{month: version}`, the version being the store's ETag of the manifest.
    """

    @dg.sensor(
        name=f"{export.settings.group}_manifests",
        job_name=f"{export.settings.group}_month",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING
        if export.settings.sensor
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks for new and restated months of {export.name}.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        known: dict[str, str] = json.loads(context.cursor or "{}")
        months = [BillingMonth.parse(key) for key in export.partitions.get_partition_keys()]
        requests = []
        for month, version in manifest_versions(export, months, context.log.error).items():
            if known.get(str(month)) == version:
                continue
            try:
                manifest = read_manifest(export, month)
            except (BillError, StoreError, StoreUnavailable) as error:
                context.log.error(f"{month} is not asked for: {error}")
                continue
            known[str(month)] = manifest.source.etag
            requests.append(
                dg.RunRequest(
                    run_key=f"{month}/{manifest.source.etag}",
                    partition_key=str(month),
                    tags={"finops/export": export.name, "finops/manifest_id": manifest.id},
                )
            )
        return dg.SensorResult(requests, cursor=json.dumps(known, sort_keys=True))

    return sensor


def manifest_versions(
    export: Export, months: Sequence[BillingMonth], report: Callable[[str], None]
) -> dict[BillingMonth, str]:
    """The version of each month's manifest, by one HEAD request a month, side by side.

    Months without a manifest are left out; one that cannot be looked at is reported and left out.
    Where none can be looked at, the store itself is at fault, and its error is raised.
    """
    store, prefix = export.store
    versions: dict[BillingMonth, str] = {}
    errors: list[Exception] = []

    def look(month: BillingMonth) -> None:
        key = export.vendor.manifest_key(prefix, export.settings.export_name, month)
        try:
            versions[month] = store.head(key).etag
        except ObjectMissing:
            pass
        except (StoreError, StoreUnavailable) as error:
            errors.append(error)

    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        list(pool.map(look, months))
    if len(errors) == len(months) > 0:
        raise errors[0]
    for error in errors:
        report(str(error))
    return dict(sorted(versions.items()))
