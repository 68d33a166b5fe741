"""The jobs of the BigQuery test server: each runs at once, and is DONE when it is answered."""

import time
import uuid

from finops_dagster_tests.servers.bigquery_catalog import Catalog
from finops_dagster_tests.servers.bigquery_errors import (
    BigQueryError,
    already_exists,
    not_found,
    not_supported,
)
from finops_dagster_tests.servers.bigquery_load import load_parquet
from finops_dagster_tests.servers.bigquery_schema import Resource
from finops_dagster_tests.servers.bigquery_sql import QueryResult, run_query

# Where BigQuery looks for a job when the request names no location.
_DEFAULT_LOCATIONS = ("US", "EU")


class Job:
    """A finished job, with the rows it selected or the error that ended it."""

    def __init__(self, project: str, job_id: str, location: str, configuration: Resource) -> None:
        self.project = project
        self.job_id = job_id
        self.location = location
        self.configuration = configuration
        self.statistics: Resource = {}
        self.result: QueryResult | None = None
        self.error: BigQueryError | None = None

    @property
    def full_name(self) -> str:
        """The name as BigQuery's messages write it: ``project:location.job``."""
        return f"{self.project}:{self.location}.{self.job_id}"

    @property
    def reference(self) -> Resource:
        """What identifies the job in the REST API."""
        return {"projectId": self.project, "jobId": self.job_id, "location": self.location}

    def resource(self) -> Resource:
        """The job as the REST API shows it."""
        status: Resource = {"state": "DONE"}
        if self.error:
            status |= {"errorResult": self.error.error_proto, "errors": [self.error.error_proto]}
        return {
            "kind": "bigquery#job",
            "id": self.full_name,
            "jobReference": self.reference,
            "configuration": self.configuration,
            "statistics": self.statistics,
            "status": status,
        }

    def query_response(self, max_results: str | int | None, start: str = "0") -> Resource:
        """The answer of jobs.query and jobs.getQueryResults: a page of rows, or the error."""
        if self.error:
            raise self.error
        if self.result is None:
            raise not_supported("query results of a load job")
        done = {"kind": "bigquery#queryResponse", "jobComplete": True}
        return {**done, "jobReference": self.reference, **self.result.page(max_results, start)}


class Jobs:
    """Runs jobs and remembers them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._jobs: dict[tuple[str, str], Job] = {}
        self.next_error: BigQueryError | None = None

    def insert(self, project: str, resource: Resource, payload: bytes | None = None) -> Job:
        """Runs a job. One that fails is inserted all the same, with the error in its status; so is
        the next one where `next_error` is set, which does nothing else."""
        configuration, reference = resource["configuration"], resource.get("jobReference") or {}
        job_id = reference.get("jobId") or f"job_{uuid.uuid4().hex}"
        if (project, job_id) in self._jobs:
            raise already_exists(f"Job {self._jobs[project, job_id].full_name}")
        location = reference.get("location")
        job = Job(project, job_id, location or "US", configuration)
        if "load" in configuration:
            # A load into a dataset that is not there is refused, and no job comes of it.
            target = configuration["load"]["destinationTable"]
            dataset = self._catalog.dataset(target["projectId"], target["datasetId"], location)
            job.location = dataset.location
        started = _milliseconds()
        try:
            if self.next_error:
                raise self.next_error
            self._run(job, location, payload)
        except BigQueryError as error:
            job.error, self.next_error = error, None
        times = {"creationTime": started, "startTime": started, "endTime": _milliseconds()}
        job.statistics.update(times)
        self._jobs[project, job_id] = job
        return job

    def get(self, project: str, job_id: str, location: str | None) -> Job:
        """The job, or BigQuery's 404 when it is not in that location."""
        job = self._jobs.get((project, job_id))
        if job is None or job.location not in ([location] if location else _DEFAULT_LOCATIONS):
            raise not_found(f"Job {project}:{location + '.' if location else ''}{job_id}")
        return job

    def _run(self, job: Job, location: str | None, payload: bytes | None) -> None:
        if "query" in job.configuration:
            query = job.configuration["query"]
            job.result = run_query(self._catalog, job.project, query, location)
            job.location = job.result.location or job.location
            job.statistics["query"] = job.result.statistics()
        elif payload is not None:
            rows = load_parquet(self._catalog, job.configuration["load"], payload)
            job.statistics["load"] = {
                "inputFiles": "1",
                "inputFileBytes": str(len(payload)),
                "outputRows": str(rows),
                "badRecords": "0",
            }
        else:
            raise not_supported(f"jobs without an uploaded file: {sorted(job.configuration)}")


def _milliseconds() -> str:
    return str(time.time_ns() // 1_000_000)
