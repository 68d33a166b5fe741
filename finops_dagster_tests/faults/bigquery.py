"""BigQuery that fails, refuses, loses its answers, or cannot write the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from werkzeug.wrappers import Request

from finops_dagster_tests.faults.chain import TABLE, Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.servers.bigquery import BigQueryServer, Fault, JobFails, Lost
from finops_dagster_tests.servers.bigquery_errors import BigQueryError
from finops_dagster_tests.warehouses.bigquery import BigQuery

Answer = Fault | None


def bigquery(folder: Path, chance: Random) -> Iterator[str]:
    """Each version is loaded by exactly one job, and the ledger says so after the next run."""
    with BigQueryServer() as server:
        chain = Chain(folder, chance, BigQuery(server), months=("2024-01",))
        must = MustHold(chain)
        while True:
            for name, fault in _FAULTS.items():
                chain.deliver("2024-01")
                times = chance.randint(1, 2)
                server.fault = _at_random(fault, times, chance)
                code, said = chain.start().end()
                server.fault = None
                assert "Traceback" not in said, said
                assert code == 0 or "failed: " in said, said
                must.whole_but_for_the_ledger()
                chain.run()
                must.settled()
                _one_load_a_version(chain)
                yield f"{name} {'mended by itself' if code == 0 else 'told'}"


def _at_random(
    fault: Callable[[Request], Answer], times: int, chance: Random
) -> Callable[[Request], Answer]:
    """The fault, so many times, each time that it could be or a later one."""
    left = times

    def inject(request: Request) -> Answer:
        nonlocal left
        answer = fault(request) if left else None
        if answer is None or chance.random() < 0.3:
            return None
        left -= 1
        return answer

    return inject


def _is_upload(request: Request) -> bool:
    return "/upload/" in request.path


def _writes_the_ledger(request: Request) -> bool:
    sql = str((request.get_json(silent=True) or {}).get("configuration", {}).get("query", {}))
    return f"{TABLE}_loads" in sql and ("INSERT" in sql or "UPDATE" in sql)


def _unavailable(request: Request) -> Answer:
    return BigQueryError(503, "backendError", "Service unavailable")


def _quota(request: Request) -> Answer:
    exceeded = BigQueryError(403, "quotaExceeded", "Quota exceeded: imports per table")
    return exceeded if _is_upload(request) else None


def _job_fails(request: Request) -> Answer:
    error = BigQueryError(400, "invalid", "Error while reading data")
    return JobFails(error) if _is_upload(request) else None


def _lost(request: Request) -> Answer:
    return Lost() if _is_upload(request) else None


def _no_ledger(request: Request) -> Answer:
    refused = BigQueryError(403, "accessDenied", "Access Denied: the ledger")
    return refused if _writes_the_ledger(request) else None


def _ledger_answer_lost(request: Request) -> Answer:
    return Lost() if _writes_the_ledger(request) else None


_FAULTS = {
    "503": _unavailable,
    "403 quota": _quota,
    "load job fails": _job_fails,
    "answer to the upload lost": _lost,
    "ledger refused": _no_ledger,
    "answer of the ledger lost": _ledger_answer_lost,
}


def _one_load_a_version(chain: Chain) -> None:
    assert chain.warehouse is not None
    loaded = Counter(row[:2] for row in chain.warehouse.ledger(TABLE) if row[3] == "loaded")
    assert set(loaded.values()) == {1}, loaded
    states = [row[3] for row in chain.warehouse.ledger(TABLE)]
    assert "loading" not in states, states
