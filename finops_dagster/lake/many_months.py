"""Reads what many months of a lake record, several at a time from a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from finops_dagster.lake.lake import Lake

# The clients of the stores keep ten connections open.
_READERS = 8
Month = TypeVar("Month")
Record = TypeVar("Record")


def map_months(
    lake: Lake, read: Callable[[Month], Record], months: Iterable[Month]
) -> list[Record]:
    """Call `read` for each month, and return the results in the order of the months.

    `months` may be any values that `read` takes, such as pairs of export and month. For a lake in a
    store, `read` is called in up to 8 threads at a time, after the first call, which connects: it
    must be thread-safe. Raises the error of the first month, in their order, that has one.
    """
    waiting = list(months)
    if not lake.is_in_store or len(waiting) < 2:
        return list(map(read, waiting))
    first = read(waiting[0])
    with ThreadPoolExecutor(_READERS) as readers:
        return [first, *readers.map(read, waiting[1:])]
