"""Add lines to the accounts file, without changing what a person wrote."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path

from finops_dagster.reports.accounts import heading_key, read_accounts_text
from finops_dagster.reports.replacing_file import replacing_file

_FIRST_LINE = "account_id,name,owner,environment,cost_centre,valid_from,valid_to"


def add_accounts(file: Path, accounts: Iterable[Mapping[str, str]]) -> None:
    """Add a line for each account to the end of the file, which is created if it is missing.

    An account is a mapping from column names, as `heading_key` returns them, to cells. Cells for
    which the file has no column are left out. Accounts that the file already has are added again.
    If the file exists, it must be one that `read_accounts` can read. Raises BillError if its folder
    is missing.
    """
    content = file.read_bytes() if file.exists() else f"{_FIRST_LINE}\n".encode()
    text = read_accounts_text(file) if file.exists() else _FIRST_LINE
    rows = csv.reader(StringIO(text, newline=""))
    headings = next(row for row in rows if any(map(str.strip, row)))
    line_end = "\r\n" if b"\r\n" in content else "\n"
    added = StringIO(newline="")
    writer = csv.writer(added, lineterminator=line_end)
    for account in accounts:
        writer.writerow([account.get(heading_key(heading.strip()), "") for heading in headings])
    between = b"" if content.endswith((b"\n", b"\r")) else line_end.encode()
    with replacing_file(file) as part:
        part.write_bytes(content + between + added.getvalue().encode())
