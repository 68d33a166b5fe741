"""Bills of one line in the BigQuery test server, loaded and read by Google's own client."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery

CUR = "test.billing.cur"
COST = Decimal("0.000000000000000001")
SCHEMA = [
    bigquery.SchemaField("billing_month", "DATE"),
    bigquery.SchemaField("account", "STRING"),
    bigquery.SchemaField("cost", "BIGNUMERIC"),
]
ARROW_SCHEMA = pa.schema(
    [("billing_month", pa.date32()), ("account", pa.string()), ("cost", pa.decimal128(38, 18))]
)
JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)


def bill(month: date, account: str = "one", cost: Decimal = COST, **columns: Any) -> pa.Table:
    """A bill of one line, with further columns if wanted."""
    rows = pa.table({"billing_month": [month], "account": [account], "cost": [cost]}, ARROW_SCHEMA)
    for name, value in columns.items():
        rows = rows.append_column(name, pa.array([value]))
    return rows


def load(
    client: bigquery.Client,
    destination: str,
    rows: pa.Table,
    resumable: bool = False,
    job_id: str | None = None,
    **config: Any,
) -> bigquery.LoadJob:
    """Uploads the rows as Parquet and waits for the job."""
    file = io.BytesIO()
    pq.write_table(rows, file)
    size = None if resumable else file.tell()
    config = {
        "source_format": "PARQUET",
        "write_disposition": "WRITE_TRUNCATE",
        "decimal_target_types": ["NUMERIC", "BIGNUMERIC"],
        **config,
    }
    job = client.load_table_from_file(
        file,
        destination,
        rewind=True,
        size=size,
        num_retries=0,
        job_id=job_id,
        job_config=bigquery.LoadJobConfig(**config),
    )
    return job.result(retry=None)


def query(client: bigquery.Client, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    config = bigquery.QueryJobConfig(query_parameters=parameters)
    rows = client.query(sql, job_config=config, retry=None, job_retry=None).result(job_retry=None)
    return [tuple(row.values()) for row in rows]


@contextmanager
def refused(error: type[GoogleAPICallError], message: str) -> Iterator[None]:
    """Expects an error of BigQuery whose message has these words."""
    with pytest.raises(error) as caught:
        yield
    assert message in caught.value.message


def accounts(client: bigquery.Client) -> list[tuple[Any, ...]]:
    return query(client, f"SELECT billing_month, account FROM `{CUR}` ORDER BY 1, 2")
