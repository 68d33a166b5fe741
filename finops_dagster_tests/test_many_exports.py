"""Tens of exports in one settings file: each with what is its own, and none in another's way."""

from __future__ import annotations

from typing import Any

import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStores, StoreError
from finops_dagster.pipeline.export import Export
from finops_dagster_tests.cur import deliver, items
from finops_dagster_tests.project import Project, months
from finops_dagster_tests.servers.s3 import S3Server

Exports = list[dict[str, Any]]
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]


@pytest.fixture
def fifty(project: Project, s3: S3Server) -> Exports:
    """Fifty exports of the project, each with a bucket for it, which is not there yet."""
    project.export, *project.more_exports = exports = [
        {
            **project.export,
            "name": f"payer-{number:02}",
            "table": f"payer_{number:02}",
            "export_name": f"payer-{number:02}",
            "source": f"s3://billing-of-{number:02}/cur",
            "endpoint_url": s3.url,
            "region": REGIONS[number % 3],
            "start_month": f"2024-{number % 12 + 1:02}" if number else "2024-01",
            "format": None if number % 2 else "cur1",
        }
        for number in range(50)
    ]
    return exports


def deliver_to(s3: S3Server, number: int) -> None:
    """Make the bucket of an export, and deliver January to it, which costs its number."""
    client, bucket = s3.client(), f"billing-of-{number:02}"
    client.create_bucket(Bucket=bucket)
    deliver(
        lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body),
        "2024-01",
        [items("2024-01", str(number))],
        report=f"payer-{number:02}",
        prefix="cur",
    )


def test_definitions_of_fifty_exports_ask_no_store(
    project: Project, s3: S3Server, fifty: Exports
) -> None:
    s3.requests.clear()
    definitions = project.definitions()
    assert len(definitions.resolve_asset_graph().get_all_asset_keys()) == 200
    assert s3.requests == []
    sensors = {sensor.name for sensor in definitions.sensors or []}
    assert len(sensors - {"lost_runs"}) == 50


@pytest.mark.thorough
def test_each_export_has_its_own_region_first_month_and_table(
    project: Project, s3: S3Server, fifty: Exports
) -> None:
    for number in range(50):
        deliver_to(s3, number)
    signed: list[str] = []
    s3.fault = lambda environ, _: signed.append(environ["HTTP_AUTHORIZATION"])
    stores = ObjectStores()
    for given, settings in zip(fifty, project.settings().exports, strict=True):
        export = Export(settings)
        assert export.source(stores).versions([BillingMonth(2024, 1)])
        assert f"/{given['region']}/s3/" in signed[-1]
        assert export.partitions.get_first_partition_key() == given["start_month"]
        assert export.table == given["table"]
    for number in (0, 12, 36):
        project.load(export=f"payer-{number:02}")
        cost = f"SELECT lineitem_unblendedcost FROM payer_{number:02}"
        assert project.query(cost) == [(number,)]


def test_a_broken_export_fails_alone(project: Project, s3: S3Server, fifty: Exports) -> None:
    for number in (12, 24):
        deliver_to(s3, number)
    fifty[0]["source"] = "s3://billing-of-nobody/cur"
    key = "cur/payer-24/20240101-20240201/payer-24-Manifest.json"
    s3.client().put_object(Bucket="billing-of-24", Key=key, Body=b"{")
    with pytest.raises(StoreError, match=r"s3://billing-of-nobody/cur/.*no such bucket"):
        project.tick(sensor="payer_00_manifests")
    assert "no such bucket" in project.materialize(export="payer-00").error
    error = project.materialize(export="payer-24").error
    assert error.startswith(f"s3://billing-of-24/{key} is not JSON")
    assert months(project.tick(sensor="payer_12_manifests")) == ["2024-01"]
    project.load(export="payer-12")
