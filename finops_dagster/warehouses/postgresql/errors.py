"""What PostgreSQL says, in one line, and whether asking again may help."""

from __future__ import annotations

import re

import adbc_driver_postgresql.dbapi as adbc

from finops_dagster.billing.errors import BillError
from finops_dagster.warehouses.base import WarehouseUnavailable

_INSUFFICIENT_PRIVILEGE = "42501"
ROW_TOO_WIDE = "54000"
_UNTRANSLATABLE = ("22021", "22P05")
# The codes, and the classes of them, of what another try may find gone: broken connections,
# transactions that met, no connection left, locks, and servers that stop or start.
_PASSING = ("08", "40001", "40P01", "53300", "55P03", "57P")
# A server that lets nobody in says so without a code.
_REFUSED = re.compile(
    r"(?s)Failed to connect: .*?(no password supplied|certificate|SSL|FATAL:  (?!.*(starting up"
    r"|shutting down|recovery|not yet accepting|too many|connection slots)))"
)


def explanation(where: str, error: adbc.Error) -> Exception:
    """Return what the server says of `where` as BillError, or as WarehouseUnavailable."""
    details = {_text(name): _text(value) for name, value in error.details}
    said = f"{where}: {details.get('PG_DIAG_MESSAGE_PRIMARY') or _of_the_way(error)}"
    code = error.sqlstate or ""
    if _REFUSED.search(str(error)):
        return BillError(f"{said}; look at [database.postgresql] and POSTGRESQL_PASSWORD")
    if code.startswith(_PASSING) or (not code and isinstance(error, adbc.OperationalError)):
        return WarehouseUnavailable(said)
    if code == _INSUFFICIENT_PRIVILEGE:
        return BillError(f"{said}; docs/warehouses.md lists what the user must be granted")
    if code == ROW_TOO_WIDE:
        return BillError(f"{said}; docs/warehouses.md says how much a row can hold")
    if code in _UNTRANSLATABLE:
        column = details.get("PG_DIAG_CONTEXT", "").rpartition(", ")[2]
        return BillError(f"{said}: {column} has a character that no text in PostgreSQL may have")
    return BillError(said)


def _of_the_way(error: adbc.Error) -> str:
    """What is said by the library between: the line with the server's answer, if it gave one."""
    lines = str(error).splitlines()
    answer = next((line for line in lines if "FATAL" in line), lines[0])
    return answer.partition("Failed to connect: ")[2] or answer


def _text(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode(errors="replace")
