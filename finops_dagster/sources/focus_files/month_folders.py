"""The folders of months: which month the name of a folder means."""

from __future__ import annotations

import re
from collections import defaultdict

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectStore

_KEY = r"(?:[A-Za-z_-]+=)?"  # as in billing_period=2026-01
_YEAR, _MONTH, _DAY = "([1-9][0-9]{3})", "(0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_YEAR_FOLDER = re.compile(f"{_KEY}{_YEAR}")
_MONTH_OF_YEAR = re.compile(f"{_KEY}(0?[1-9]|1[0-2])")
_END = r"(?:[-_]+(\d{4}\2\d\d\2\d\d))?"
# 2026-01, 202601, 2026-01-01, 20260101-20260131 and 2026-01-01_2026-02-01
_WHOLE = re.compile(f"{_KEY}{_YEAR}([-_]?){_MONTH}(?:\\2{_DAY}{_END})?")
EXAMPLES = (
    "2026-01, 202601, 20260101-20260131, 2026/01, billing_period=2026-01 or year=2026/month=1"
)


def month_folders(store: ObjectStore, root: str) -> dict[BillingMonth, list[str]]:
    """Return the keys of each month's folders below `root`, by one LIST and one more for each year.

    `EXAMPLES` shows the names that are known. The folder of a day, such as `2026-01-15`, is also
    one of its month. So a month has several folders if it is spelled in several ways, or has
    folders of days. A month without a folder is left out.
    """
    folders: dict[BillingMonth, list[str]] = defaultdict(list)
    for name in sorted(store.folder_names(root)):
        folder = f"{root}/{name}".lstrip("/")
        if (month := _whole_month(name)) is not None:
            folders[month].append(folder)
        elif year := _YEAR_FOLDER.fullmatch(name):
            for part in sorted(store.folder_names(folder)):
                month = _whole_month(part)
                if match := _MONTH_OF_YEAR.fullmatch(part):
                    month = BillingMonth(int(year[1]), int(match[1]))
                if month is not None:
                    folders[month].append(f"{folder}/{part}")
    return folders


def _whole_month(name: str) -> BillingMonth | None:
    """Return the month of a folder that names year and month, or the days of one month."""
    match = _WHOLE.fullmatch(name)
    if match is None:
        return None
    month, end = BillingMonth(int(match[1]), int(match[3])), re.sub(r"\D", "", match[4] or "")
    # Some write the last day of the month, others the first day after it.
    is_one_month = not end or end[:6] == f"{month.first_day:%Y%m}"
    return month if is_one_month or end == f"{month.next.first_day:%Y%m%d}" else None
