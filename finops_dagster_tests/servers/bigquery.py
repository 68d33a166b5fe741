"""A BigQuery server for tests, which the real `google-cloud-bigquery` client talks to.

Loading a month of a bill replaces one partition, `table$YYYYMM` with WRITE_TRUNCATE, and none of
the emulators on the package registries can do that. This server speaks BigQuery's REST API v2 on
127.0.0.1, as far as the project uses it: datasets, tables, load jobs of a Parquet file that is
uploaded or in Google's storage, and queries. DuckDB holds the rows in memory and sqlglot translates
the SQL.

    with BigQueryServer() as server:
        server.client().create_dataset("billing")

It answers what it cannot do with an error, mostly 501. How it differs from BigQuery:

- Every job runs at once and is DONE when it is answered. A load that fails always does so in its
  job; BigQuery finds some mistakes in a schema before it makes the job, and answers with a 400.
- Where a request names no location, it is the US.
- BIGNUMERIC has 18 digits after the point and 20 before it, and is exact within them; BigQuery's
  has 38 and 38. There is no NUMERIC. A decimal literal is a decimal here, a FLOAT64 there.
- Parquet timestamps become TIMESTAMP whether they are adjusted to UTC or not, because Google's
  documentation names no other type for them.
- Parquet columns that may not be NULL are REQUIRED, and refused where the table says NULLABLE.
  BigQuery has been seen to do so, but perhaps not always. Only a load job with
  ALLOW_FIELD_RELAXATION makes a REQUIRED field NULLABLE.
- Parquet maps become arrays of structs, as `mapTargetType` has it. Parquet demands that a key is
  not NULL, and a load makes it REQUIRED or NULLABLE, as `map_key_mode` says, because no
  documentation says what BigQuery does. A map that is NULL becomes an array without elements in the
  table; that a query gives it so is documented, that the table holds it so is not.
- Load jobs replace a partition that exists. Tables are partitioned by the month of a DATE, or not
  at all.
- Of DDL there is one statement, CREATE OR REPLACE TABLE of a table that exists, with a list of
  columns, AS a query of it; its partitioning and clustering must be those that the table has, where
  BigQuery is known to refuse others.
- The case of table names is ignored, partition filters are not demanded, flexible column names are
  not allowed, and permissions, quotas and the age of partitions are not looked at.
- SQL means what sqlglot's translation means to DuckDB, which is laxer about types; the messages of
  SQL errors are DuckDB's. The wording of other errors is BigQuery's where it is known.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from finops_dagster_tests.servers.bigquery_api import BigQueryApi, json_response
from finops_dagster_tests.servers.bigquery_errors import BigQueryError, not_supported

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Lost:
    """A fault: the request is executed, and its answer does not arrive."""


@dataclass(frozen=True)
class JobFails:
    """A fault: the requested job is accepted, and ends with this error."""

    error: BigQueryError


Fault = BigQueryError | Lost | JobFails


class BigQueryServer:
    """A BigQuery server on a free port of 127.0.0.1, started and stopped by `with`.

    `map_key_mode` is the mode that a load gives the keys of a map: see above. `storage_url` is the
    address of the emulator from which load jobs read `gs://`. `fault`, when set, is
    called with every request: it can answer with an error, lose the answer, or let the job fail.
    """

    def __init__(self, map_key_mode: str = "REQUIRED", storage_url: str = "") -> None:
        self._map_key_mode, self._storage_url = map_key_mode, storage_url
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[Request], Fault | None] | None = None
        self._clients: list[bigquery.Client] = []

    def __enter__(self) -> Self:
        self._api = BigQueryApi(self._map_key_mode, self._storage_url)
        self._http = make_server(
            "127.0.0.1", 0, self._application, threaded=True, request_handler=_QuietHandler
        )
        # The interval bounds how long the end of the block waits for the server to stop.
        serving = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=serving)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.close()
        self._http.shutdown()
        self._thread.join()
        self._api.close()

    @property
    def url(self) -> str:
        """The `api_endpoint` for a client."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def client(self, project: str = "test") -> bigquery.Client:
        """Return a real client of this server, which is closed with the server."""
        options = ClientOptions(api_endpoint=self.url)
        client = bigquery.Client(project, AnonymousCredentials(), client_options=options)
        self._clients.append(client)
        return client

    def _application(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        request = Request(environ)
        # An unread body would break the connection under a client that is still sending.
        request.get_data()
        self.requests.append((request.method, request.path))
        try:
            answer = self._answer(request)
        except BigQueryError as error:
            answer = json_response(error.http_body(), error.status)
        except Exception as error:
            # The client would repeat a request that ends in a 500 for ten minutes.
            answer = json_response(not_supported(f"this request: {error!r}").http_body(), 501)
        return answer(environ, start_response)

    def _answer(self, request: Request) -> Response:
        fault = self.fault(request) if self.fault else None
        if isinstance(fault, BigQueryError):
            raise fault
        if isinstance(fault, JobFails):
            self._api.next_job_error = fault.error
        answer = self._api.answer(request)
        if isinstance(fault, Lost):
            raise BigQueryError(503, "backendError", "The answer was lost")
        return answer


class _QuietHandler(WSGIRequestHandler):
    """A handler without access log."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass
