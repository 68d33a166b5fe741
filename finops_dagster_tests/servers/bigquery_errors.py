"""The errors of the BigQuery test server, in BigQuery's words and JSON shape."""

from typing import Any


class BigQueryError(Exception):
    """An error answered over HTTP, or kept as the `errorResult` of a job."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_proto = {"reason": reason, "message": message}

    def http_body(self) -> dict[str, Any]:
        """The body of an HTTP error answer."""
        errors = [{**self.error_proto, "domain": "global"}]
        message = self.error_proto["message"]
        return {"error": {"code": self.status, "message": message, "errors": errors}}


def invalid(message: str) -> BigQueryError:
    """A request or a file that BigQuery refuses."""
    return BigQueryError(400, "invalid", message)


def invalid_query(message: str) -> BigQueryError:
    """A SQL statement that BigQuery refuses."""
    return BigQueryError(400, "invalidQuery", message)


def not_found(what: str) -> BigQueryError:
    """A dataset, table or job that does not exist."""
    return BigQueryError(404, "notFound", f"Not found: {what}")


def already_exists(what: str) -> BigQueryError:
    """A dataset, table or job whose name is taken."""
    return BigQueryError(409, "duplicate", f"Already Exists: {what}")


def not_supported(what: str) -> BigQueryError:
    """Something BigQuery can do and this server cannot."""
    return BigQueryError(501, "notImplemented", f"The BigQuery test server does not support {what}")
