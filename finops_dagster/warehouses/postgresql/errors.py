"""The translation of PostgreSQL's errors to one-line errors, transient or permanent."""

from __future__ import annotations

import re

import adbc_driver_postgresql.dbapi as adbc

from finops_dagster.billing.errors import BillError
from finops_dagster.warehouses.month_file import WarehouseUnavailable

ROW_TOO_WIDE, LOCK_NOT_AVAILABLE = "54000", "55P03"
_ADVICE = {
    "42501": "docs/warehouses.md lists the rights that the user needs",
    ROW_TOO_WIDE: "docs/warehouses.md says how much a row can hold",
}
_CHECK_TABLE = "docs/warehouses.md says what the load needs, and which changes a table may have"
# Characters that PostgreSQL cannot store, such as U+0000.
_UNTRANSLATABLE = ("22021", "22P05")
# Codes and classes of codes of transient errors: broken connections, conflicting transactions,
# no connection left, locks, and servers that stop or start.
_TRANSIENT_CODES = ("08", "40001", "40P01", "53300", LOCK_NOT_AVAILABLE, "57P")
# A login that the server refuses has no code. A server that starts or is full is transient.
_LOGIN_REFUSED = re.compile(
    r"(?s)Failed to connect: .*?(no password supplied|certificate|SSL|FATAL:  (?!.*(starting up"
    r"|shutting down|recovery|not yet accepting|too many|connection slots)))"
)


def translate_error(location: str, error: adbc.Error) -> Exception:
    """Return the error as WarehouseUnavailable if a retry may help, else as BillError.

    The message is one line, which begins with `location`.
    """
    details = {_text(name): _text(value) for name, value in error.details}
    # Without details the message is the client's; its FATAL line is the server's answer.
    lines = str(error).splitlines()
    line = next((line for line in lines if "FATAL" in line), lines[0])
    line = line.partition("Failed to connect: ")[2] or line
    message, code = f"{location}: {details.get('PG_DIAG_MESSAGE_PRIMARY') or line}", error.sqlstate
    if _LOGIN_REFUSED.search(str(error)):
        return BillError(f"{message}; check [database.postgresql] and POSTGRESQL_PASSWORD")
    if (code or "").startswith(_TRANSIENT_CODES) or (
        not code and isinstance(error, adbc.OperationalError)
    ):
        return WarehouseUnavailable(message)
    if code in _UNTRANSLATABLE:
        column = details.get("PG_DIAG_CONTEXT", "").rpartition(", ")[2]
        return BillError(
            f"{message}: {column} has a character that PostgreSQL cannot store in text; remove it "
            "at the vendor, or load the export into another warehouse"
        )
    return BillError(f"{message}; {_ADVICE.get(code or '', _CHECK_TABLE)}")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
