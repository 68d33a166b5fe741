"""What PostgreSQL says, in one line, and whether asking again may help."""

from __future__ import annotations

import re

import adbc_driver_postgresql.dbapi as adbc

from finops_dagster.billing.errors import BillError
from finops_dagster.warehouses.month_file import WarehouseUnavailable

ROW_TOO_WIDE = "54000"
_ADVICE = {
    "42501": "docs/warehouses.md lists what the user must be granted",
    ROW_TOO_WIDE: "docs/warehouses.md says how much a row can hold",
}
_UNTRANSLATABLE = ("22021", "22P05")
# The codes, and the classes of them, of what another try may find gone: broken connections,
# transactions that met, no connection left, locks, and servers that stop or start.
_TRANSIENT_CODES = ("08", "40001", "40P01", "53300", "55P03", "57P")
# A server that lets nobody in says so without a code.
_LOGIN_REFUSED = re.compile(
    r"(?s)Failed to connect: .*?(no password supplied|certificate|SSL|FATAL:  (?!.*(starting up"
    r"|shutting down|recovery|not yet accepting|too many|connection slots)))"
)


def translate_error(where: str, error: adbc.Error) -> Exception:
    """Return what the server says of `where` as BillError, or as WarehouseUnavailable."""
    details = {_text(name): _text(value) for name, value in error.details}
    # Without details it is the client's word: the line with the server's answer, if it gave one.
    lines = str(error).splitlines()
    line = next((line for line in lines if "FATAL" in line), lines[0])
    line = line.partition("Failed to connect: ")[2] or line
    message, code = f"{where}: {details.get('PG_DIAG_MESSAGE_PRIMARY') or line}", error.sqlstate
    if _LOGIN_REFUSED.search(str(error)):
        return BillError(f"{message}; look at [database.postgresql] and POSTGRESQL_PASSWORD")
    if (code or "").startswith(_TRANSIENT_CODES) or (
        not code and isinstance(error, adbc.OperationalError)
    ):
        return WarehouseUnavailable(message)
    if code in _UNTRANSLATABLE:
        column = details.get("PG_DIAG_CONTEXT", "").rpartition(", ")[2]
        return BillError(f"{message}: {column} has a character that no text in PostgreSQL may have")
    return BillError("; ".join(filter(None, [message, _ADVICE.get(code or "")])))


def _text(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode(errors="replace")
