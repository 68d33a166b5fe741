"""The REST API of the BigQuery test server: its routes and its jobs.

Every job runs at once, and is DONE when its request is answered.
"""

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from finops_dagster_tests.servers.bigquery_errors import (
    BigQueryError,
    already_exists,
    not_found,
    not_supported,
)
from finops_dagster_tests.servers.bigquery_sql import QueryResult, run_query
from finops_dagster_tests.servers.bigquery_tables import Catalog, Resource, Table

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
        Rule(f"{_PROJECT}/jobs", methods=["POST"], endpoint="insert_job"),
        Rule(f"{_PROJECT}/jobs/<job_id>", methods=["GET"], endpoint="get_job"),
        Rule(f"{_PROJECT}/queries", methods=["POST"], endpoint="query"),
        Rule(f"{_PROJECT}/queries/<job_id>", methods=["GET"], endpoint="get_query_results"),
        Rule(_UPLOAD, methods=["POST", "PUT"], endpoint="upload"),
        Rule(f"/resumable{_UPLOAD}", methods=["POST", "PUT"], endpoint="upload"),
    ]
)


@dataclass
class Job:
    """A finished job, with the rows that it selected or the error that ended it."""

    reference: Resource
    configuration: Resource
    statistics: Resource = field(default_factory=dict)
    result: QueryResult | None = None
    error: BigQueryError | None = None

    def resource(self) -> Resource:
        """Return the job as the REST API shows it."""
        status: Resource = {"state": "DONE"}
        if self.error:
            status |= {"errorResult": self.error.error_proto, "errors": [self.error.error_proto]}
        return {
            "jobReference": self.reference,
            "configuration": self.configuration,
            "statistics": self.statistics,
            "status": status,
        }

    def query_response(self, max_results: str | int | None, start: str = "0") -> Resource:
        """Return a page of rows, as jobs.query and jobs.getQueryResults answer it.

        The page begins at the row `start` and has at most `max_results` rows, or all if None.
        Raises the job's error, if it failed.
        """
        if self.error:
            raise self.error
        if self.result is None:
            raise not_supported("query results of a load job")
        page = self.result.page(max_results, start)
        return {"jobComplete": True, "jobReference": self.reference, **page}


class BigQueryApi:
    """Answers requests one at a time, so that each sees the result of the one before it."""

    def __init__(self, map_key_mode: str, storage_url: str) -> None:
        self._storage_url = storage_url
        self._lock = threading.Lock()
        self._catalog = Catalog(map_key_mode)
        self._jobs: dict[tuple[str, str, str], Job] = {}
        self.next_job_error: BigQueryError | None = None
        # Resumable uploads: the job of each, and the bytes received so far.
        self._uploads: list[tuple[Resource, bytearray]] = []

    def answer(self, request: Request) -> Response:
        """Execute a request and return its answer. Raises BigQueryError."""
        try:
            endpoint, arguments = _ROUTES.bind_to_environ(request.environ).match()
        except HTTPException as error:
            raise not_supported(f"{request.method} {request.path}") from error
        with self._lock:
            body = getattr(self, f"_{endpoint}")(request, **arguments)
        return body if isinstance(body, Response) else json_response(body)

    def close(self) -> None:
        self._catalog.connection.close()

    def _insert_dataset(self, request: Request, project: str) -> Resource:
        return self._catalog.insert_dataset(project, request.get_json()).resource()

    def _list_datasets(self, request: Request, project: str) -> Resource:
        return {"datasets": [dataset.resource() for dataset in self._catalog.datasets(project)]}

    def _get_dataset(self, request: Request, project: str, dataset_id: str) -> Resource:
        return self._catalog.dataset(project, dataset_id).resource()

    def _insert_table(self, request: Request, project: str, dataset_id: str) -> Resource:
        dataset = self._catalog.dataset(project, dataset_id)
        return self._resource(self._catalog.insert_table(dataset, request.get_json()))

    def _list_tables(self, request: Request, project: str, dataset_id: str) -> Resource:
        tables = self._catalog.dataset(project, dataset_id).tables.values()
        return {"tables": [table.resource() for table in tables], "totalItems": len(tables)}

    def _get_table(self, request: Request, **names: str) -> Resource:
        return self._resource(self._catalog.table(**names))

    def _patch_table(self, request: Request, **names: str) -> Resource:
        table = self._catalog.table(**names)
        self._catalog.patch_table(table, request.get_json(), request.headers.get("If-Match"))
        return self._resource(table)

    def _delete_table(self, request: Request, **names: str) -> Response:
        self._catalog.delete_table(self._catalog.table(**names))
        return Response(status=204)

    def _insert_job(self, request: Request, project: str) -> Resource:
        return self._run_job(project, request.get_json()).resource()

    def _get_job(self, request: Request, project: str, job_id: str) -> Resource:
        return self._job(request, project, job_id).resource()

    def _query(self, request: Request, project: str) -> Resource:
        body = request.get_json()
        reference = {"location": body.get("location")}
        job = {"jobReference": reference, "configuration": {"query": body}}
        return self._run_job(project, job).query_response(body.get("maxResults"))

    def _get_query_results(self, request: Request, project: str, job_id: str) -> Resource:
        start = request.args.get("pageToken") or request.args.get("startIndex") or "0"
        job = self._job(request, project, job_id)
        return job.query_response(request.args.get("maxResults"), start)

    def _upload(self, request: Request, project: str) -> Resource | Response:
        if request.args["uploadType"] == "multipart":
            return self._run_job(project, *_multipart(request)).resource()
        if request.method == "POST":
            self._uploads.append((request.get_json(), bytearray()))
            session = f"?uploadType=resumable&upload_id={len(self._uploads)}"
            return Response(headers={"Location": request.base_url + session})
        job, received = self._uploads[int(request.args["upload_id"]) - 1]
        received += request.get_data()
        # "bytes 0-99/*" until the last chunk, which knows the total: "bytes 100-149/150".
        if request.headers["Content-Range"].endswith(f"/{len(received)}"):
            return self._run_job(project, job, bytes(received)).resource()
        return Response(status=308, headers={"Range": f"bytes=0-{len(received) - 1}"})

    def _resource(self, table: Table) -> Resource:
        return {**table.resource(), "numRows": str(self._catalog.count_rows(table))}

    def _job(self, request: Request, project: str, job_id: str) -> Job:
        """Return a job, or raise BigQuery's 404 where the request names another location."""
        location = request.args.get("location", "US")
        if (project, location, job_id) not in self._jobs:
            raise not_found(f"Job {project}:{location}.{job_id}")
        return self._jobs[project, location, job_id]

    def _run_job(self, project: str, resource: Resource, payload: bytes | None = None) -> Job:
        """Run a job, and keep it, with its error where it fails.

        Where `next_job_error` is set, the job fails with it and does nothing.
        """
        configuration, requested = resource["configuration"], resource.get("jobReference") or {}
        job_id = requested.get("jobId") or f"job_{uuid.uuid4().hex}"
        location = requested.get("location") or "US"
        if (project, location, job_id) in self._jobs:
            raise already_exists(f"Job {project}:{location}.{job_id}")
        if "load" in configuration:
            # BigQuery refuses a load into a missing dataset at once, and creates no job.
            target = configuration["load"]["destinationTable"]
            self._catalog.dataset(target["projectId"], target["datasetId"], location)
        reference = {"projectId": project, "jobId": job_id, "location": location}
        job = Job(reference, configuration)
        try:
            if self.next_job_error:
                raise self.next_job_error
            if "query" in configuration:
                job.result = run_query(self._catalog, project, configuration["query"], location)
            elif "load" in configuration:
                if payload is None:
                    payload = self._object(configuration["load"])
                rows = self._catalog.load(configuration["load"], payload)
                job.statistics["load"] = {"outputRows": str(rows)}
            else:
                raise not_supported(f"a job of {sorted(configuration)}")
        except BigQueryError as error:
            job.error, self.next_job_error = error, None
        self._jobs[project, location, job_id] = job
        return job

    def _object(self, config: Resource) -> bytes:
        """Download the object in Google's storage that a load job names."""
        uris = config.get("sourceUris") or []
        match = re.fullmatch("gs://([^/]+)/([^*]+)", uris[0]) if len(uris) == 1 else None
        if not match:
            raise not_supported(f"a load job of {uris}")
        bucket, name = match.groups()
        url = f"{self._storage_url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
        try:
            with urlopen(url) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise not_found(f"URI {uris[0]}") from error


def json_response(body: Resource, status: int = 200) -> Response:
    """Return a resource as an HTTP answer."""
    return Response(json.dumps(body), status, mimetype="application/json")


def _multipart(request: Request) -> tuple[Resource, bytes]:
    """Return the two parts of a `multipart/related` body: the job and the file."""
    boundary = b"--" + request.mimetype_params["boundary"].encode()
    _, job, file, _ = request.get_data().split(boundary)
    headers_end = b"\r\n\r\n"
    return json.loads(job.partition(headers_end)[2]), file.partition(headers_end)[2][:-2]
