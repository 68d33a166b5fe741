"""What others need for the same files: bare DuckDB, dlt, and a single stream from the S3 server."""

from __future__ import annotations

import json
from pathlib import Path

from finops_dagster.billing.columns import literal
from finops_dagster_tests.benchmarks.chain import ROOT, Chain, Run

DLT = ROOT / ".venv-dlt" / "bin" / "python"
_TYPES = {
    "BigDecimal": "DECIMAL(38,18)",
    "OptionalBigDecimal": "DECIMAL(38,18)",
    "DateTime": "TIMESTAMP",
}
_BARE = """
import duckdb, sys
connection = duckdb.connect("bare.duckdb", config={"memory_limit": "2GB"})
connection.execute("SET preserve_insertion_order = false")
connection.execute(sys.argv[1])
connection.execute("COPY month TO 'bare.parquet' (FORMAT parquet, COMPRESSION zstd)")
"""
_DLT = """
import sys, dlt
from dlt.sources.filesystem import filesystem, read_csv_duckdb
files = filesystem(bucket_url=f"file://{sys.argv[1]}", file_glob="**/*.csv.gz")
rows = (files | read_csv_duckdb(use_pyarrow=True)).with_name("month")
destination = dlt.destinations.duckdb("dlt.duckdb")
dlt.pipeline("bill", destination=destination, dataset_name="bill", pipelines_dir="dlt").run(rows)
"""
_STREAM = """
import sys, time, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
listed = client.list_objects_v2(Bucket=sys.argv[2])["Contents"]
started = time.monotonic()
for each in listed:
    with open("stream", "wb") as file:
        body = client.get_object(Bucket=sys.argv[2], Key=each["Key"])["Body"]
        for chunk in body.iter_chunks(1024 * 1024):
            file.write(chunk)
print(time.monotonic() - started)
"""


def bare_duckdb(chain: Chain, source: Path) -> Run:
    """The least that DuckDB can do with the same types: a CREATE TABLE AS over read_csv, then a
    COPY to zstd Parquet. Nothing is verified, counted or reconciled."""
    files = sorted(source.rglob("*.csv.gz"))
    (manifest,) = files[0].parent.glob("*-Manifest.json")
    columns = ", ".join(
        f"{literal(c['category'] + '/' + c['name'])}: '{_TYPES.get(c['type'], 'VARCHAR')}'"
        for c in json.loads(manifest.read_text())["columns"]
    )
    paths = ", ".join(literal(str(file)) for file in files)
    create = (
        f"CREATE TABLE month AS FROM read_csv([{paths}], header = true, auto_detect = false, "
        f"delim = ',', quote = '\"', escape = '\"', columns = {{{columns}}})"
    )
    return chain.python(_BARE, create)


def dlt(chain: Chain, source: Path) -> Run:
    """dlt loads the files into DuckDB, with the types that DuckDB guesses: costs are doubles."""
    return chain.run([str(DLT), "-c", _DLT, str(source)])


def single_stream(chain: Chain, url: str, bucket: str) -> float:
    """The seconds in which one stream of one client writes all of the bucket to disk."""
    chain.python(_STREAM, url, bucket)
    return float((chain.work / "output.txt").read_text().split()[-1])
