"""BigQuery with faults: errors, lost answers, and a ledger that cannot be written.

Each version is loaded by exactly one job, and the ledger records it after the next run.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from werkzeug import Request

from finops_dagster_tests.cur import deliver, line_items
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.bigquery import BigQueryServer, Fault, JobFails, Lost
from finops_dagster_tests.servers.bigquery_errors import BigQueryError
from finops_dagster_tests.warehouses.bigquery import BigQuery

TABLE = "aws_billing_data"


def any_request(request: Request) -> bool:
    return True


def is_upload(request: Request) -> bool:
    return "/upload/" in request.path


def writes_ledger(request: Request) -> bool:
    sql = str((request.get_json(silent=True) or {}).get("configuration", {}).get("query", {}))
    return f"{TABLE}_loads" in sql and ("INSERT" in sql or "UPDATE" in sql)


FAULTS: list[tuple[Callable[[Request], bool], Fault]] = [
    (any_request, BigQueryError(503, "backendError", "Service unavailable")),
    (is_upload, BigQueryError(403, "quotaExceeded", "Quota exceeded: imports per table")),
    (is_upload, JobFails(BigQueryError(400, "invalid", "Error while reading data"))),
    (is_upload, Lost()),
    (writes_ledger, BigQueryError(403, "accessDenied", "Access Denied: the ledger")),
    (writes_ledger, Lost()),
]


@pytest.mark.parametrize("matches_before", [0, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("matches", "fault"), FAULTS)
@pytest.mark.quick("is_upload-fault3", "writes_ledger-fault5")
def test_each_version_is_loaded_by_exactly_one_job(
    project: Project, matches: Callable[[Request], bool], fault: Fault, matches_before: int
) -> None:
    with BigQueryServer() as server:
        warehouse = BigQuery(server)
        project.database = {"backend": "bigquery", "bigquery": warehouse.settings}
        deliver(project.put, "2024-01", [line_items("2024-01", "1")], version="v1")
        project.load("2024-01")
        deliver(project.put, "2024-01", [line_items("2024-01", "2")], version="v2")
        matched: list[str] = []

        def inject(request: Request) -> Fault | None:
            matched.extend([request.path] if matches(request) else [])
            return fault if matches(request) and len(matched) == matches_before + 1 else None

        server.fault = inject
        project.materialize("2024-01")
        server.fault = None
        (version,) = warehouse.rows(TABLE, ("manifest_id",), "2024-01")
        assert version in [("v1",), ("v2",)]
        project.load("2024-01")
        assert warehouse.rows(TABLE, ("manifest_id",), "2024-01") == [("v2",)]
        states = [row[1:4:2] for row in warehouse.ledger(TABLE)]
        assert sorted(row for row in states if row[1] != "failed") == [
            ("v1", "loaded"),
            ("v2", "loaded"),
        ]
