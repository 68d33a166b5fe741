"""The errors of the BigQuery test server, with BigQuery's messages and JSON."""

from typing import Any


class BigQueryError(Exception):
    """An error that is answered over HTTP, or kept as the `errorResult` of a job."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_proto = {"reason": reason, "message": message}

    def http_body(self) -> dict[str, Any]:
        """Return the body of an HTTP error answer."""
        errors = [{**self.error_proto, "domain": "global"}]
        message = self.error_proto["message"]
        return {"error": {"code": self.status, "message": message, "errors": errors}}


def invalid(message: str) -> BigQueryError:
    """Return the error of a request or a file that BigQuery refuses."""
    return BigQueryError(400, "invalid", message)


def invalid_query(message: str) -> BigQueryError:
    """Return the error of a SQL statement that BigQuery refuses."""
    return BigQueryError(400, "invalidQuery", message)


def not_found(name: str) -> BigQueryError:
    """Return the error of a missing object; `name` has its kind: `Table test:billing.cur`."""
    return BigQueryError(404, "notFound", f"Not found: {name}")


def already_exists(name: str) -> BigQueryError:
    """Return the error of a name that is taken; `name` has its kind: `Table test:billing.cur`."""
    return BigQueryError(409, "duplicate", f"Already Exists: {name}")


def not_supported(feature: str) -> BigQueryError:
    """Return the error of a feature that BigQuery has and this server lacks."""
    message = f"The BigQuery test server does not support {feature}"
    return BigQueryError(501, "notImplemented", message)
