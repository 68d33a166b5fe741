"""The REST API of the BigQuery test server: which request does what."""

import json
import threading

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from finops_dagster_tests.servers.bigquery_catalog import Catalog, Table
from finops_dagster_tests.servers.bigquery_errors import BigQueryError, not_supported
from finops_dagster_tests.servers.bigquery_jobs import Jobs
from finops_dagster_tests.servers.bigquery_schema import Resource, quoted
from finops_dagster_tests.servers.bigquery_sql import select_rows

_PROJECT = "/bigquery/v2/projects/<project>"
_TABLES = f"{_PROJECT}/datasets/<dataset_id>/tables"
_UPLOAD = "/upload/bigquery/v2/projects/<project>/jobs"
_ROUTES = Map(
    [
        Rule(f"{_PROJECT}/datasets", methods=["POST"], endpoint="insert_dataset"),
        Rule(f"{_PROJECT}/datasets", methods=["GET"], endpoint="list_datasets"),
        Rule(f"{_PROJECT}/datasets/<dataset_id>", methods=["GET"], endpoint="get_dataset"),
        Rule(_TABLES, methods=["POST"], endpoint="insert_table"),
        Rule(_TABLES, methods=["GET"], endpoint="list_tables"),
        Rule(f"{_TABLES}/<table_id>", methods=["GET"], endpoint="get_table"),
        Rule(f"{_TABLES}/<table_id>", methods=["PATCH"], endpoint="patch_table"),
        Rule(f"{_TABLES}/<table_id>", methods=["DELETE"], endpoint="delete_table"),
        Rule(f"{_TABLES}/<table_id>/data", methods=["GET"], endpoint="list_rows"),
        Rule(f"{_PROJECT}/jobs", methods=["POST"], endpoint="insert_job"),
        Rule(f"{_PROJECT}/jobs/<job_id>", methods=["GET"], endpoint="get_job"),
        Rule(f"{_PROJECT}/queries", methods=["POST"], endpoint="query"),
        Rule(f"{_PROJECT}/queries/<job_id>", methods=["GET"], endpoint="get_query_results"),
        Rule(_UPLOAD, methods=["POST", "PUT"], endpoint="upload"),
        Rule(f"/resumable{_UPLOAD}", methods=["POST", "PUT"], endpoint="upload"),
    ]
)


class BigQueryApi:
    """Answers requests one at a time, so that each sees the whole of what came before."""

    def __init__(self, map_key_mode: str) -> None:
        self._lock = threading.Lock()
        self._catalog = Catalog(map_key_mode)
        self.jobs = Jobs(self._catalog)
        # Resumable uploads: the job that each is for, and the bytes that have come so far.
        self._uploads: list[tuple[Resource, bytearray]] = []

    def answer(self, request: Request) -> Response:
        """Does what the request asks; raises ``BigQueryError`` when it cannot."""
        try:
            endpoint, arguments = _ROUTES.bind_to_environ(request.environ).match()
        except HTTPException as error:
            raise not_supported(f"{request.method} {request.path}") from error
        with self._lock:
            body = getattr(self, f"_{endpoint}")(request, **arguments)
        return body if isinstance(body, Response) else json_response(body)

    def close(self) -> None:
        """Gives up the rows."""
        self._catalog.connection.close()

    def _insert_dataset(self, request: Request, project: str) -> Resource:
        return self._catalog.insert_dataset(project, request.get_json()).resource()

    def _list_datasets(self, request: Request, project: str) -> Resource:
        return {"datasets": [each.resource() for each in self._catalog.datasets(project)]}

    def _get_dataset(self, request: Request, project: str, dataset_id: str) -> Resource:
        return self._catalog.dataset(project, dataset_id).resource()

    def _insert_table(self, request: Request, project: str, dataset_id: str) -> Resource:
        dataset = self._catalog.dataset(project, dataset_id)
        return self._table_resource(self._catalog.insert_table(dataset, request.get_json()))

    def _list_tables(self, request: Request, project: str, dataset_id: str) -> Resource:
        tables = self._catalog.dataset(project, dataset_id).tables.values()
        return {"tables": [table.resource() for table in tables], "totalItems": len(tables)}

    def _get_table(self, request: Request, **names: str) -> Resource:
        return self._table_resource(self._catalog.table(**names))

    def _patch_table(self, request: Request, **names: str) -> Resource:
        table = self._catalog.table(**names)
        self._catalog.patch_table(table, request.get_json(), request.headers.get("If-Match"))
        return self._table_resource(table)

    def _delete_table(self, request: Request, **names: str) -> Response:
        self._catalog.delete_table(self._catalog.table(**names))
        return Response(status=204)

    def _list_rows(self, request: Request, **names: str) -> Resource:
        selected = request.args.get("selectedFields")
        columns = ", ".join(map(quoted, selected.split(","))) if selected else "*"
        sql = f"SELECT {columns} FROM {self._catalog.table(**names).sql_name}"
        return select_rows(self._catalog.connection, sql, {}).page(*_paging(request))

    def _insert_job(self, request: Request, project: str) -> Resource:
        return self.jobs.insert(project, request.get_json()).resource()

    def _get_job(self, request: Request, project: str, job_id: str) -> Resource:
        return self.jobs.get(project, job_id, request.args.get("location")).resource()

    def _query(self, request: Request, project: str) -> Resource:
        body = request.get_json()
        reference = {"location": body.get("location")}
        job = {"jobReference": reference, "configuration": {"query": body}}
        return self.jobs.insert(project, job).query_response(body.get("maxResults"))

    def _get_query_results(self, request: Request, project: str, job_id: str) -> Resource:
        job = self.jobs.get(project, job_id, request.args.get("location"))
        return job.query_response(*_paging(request))

    def _upload(self, request: Request, project: str) -> Resource | Response:
        if request.args["uploadType"] == "multipart":
            return self.jobs.insert(project, *_multipart(request)).resource()
        if request.method == "POST":
            self._uploads.append((request.get_json(), bytearray()))
            session = f"?uploadType=resumable&upload_id={len(self._uploads)}"
            return Response(headers={"Location": request.base_url + session})
        job, received = self._uploads[int(request.args["upload_id"]) - 1]
        received += request.get_data()
        # "bytes 0-99/*" until the last chunk, which knows the total: "bytes 100-149/150".
        if request.headers["Content-Range"].endswith(f"/{len(received)}"):
            return self.jobs.insert(project, job, bytes(received)).resource()
        return Response(status=308, headers={"Range": f"bytes=0-{len(received) - 1}"})

    def _table_resource(self, table: Table) -> Resource:
        return {**table.resource(), "numRows": str(self._catalog.count_rows(table))}


def json_response(body: Resource, status: int = 200) -> Response:
    """A resource as an HTTP answer."""
    return Response(json.dumps(body), status, mimetype="application/json")


def error_response(error: BigQueryError) -> Response:
    """An error as an HTTP answer."""
    return json_response(error.http_body(), error.status)


def _paging(request: Request) -> tuple[str | None, str]:
    """How many rows are wanted at most, and from which on."""
    start = request.args.get("pageToken") or request.args.get("startIndex") or "0"
    return request.args.get("maxResults"), start


def _multipart(request: Request) -> tuple[Resource, bytes]:
    """The two parts of a ``multipart/related`` body: the job and the file."""
    boundary = b"--" + request.mimetype_params["boundary"].encode()
    _, job, file, _ = request.get_data().split(boundary)
    headers_end = b"\r\n\r\n"
    return json.loads(job.partition(headers_end)[2]), file.partition(headers_end)[2][:-2]
