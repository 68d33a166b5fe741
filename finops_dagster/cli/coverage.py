"""What `finops state verify` looked at, and what not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_PLAIN = "event log, ledger, footers of Parquet files, rows and cost of DuckDB tables"
_DEEP = (
    "event log, ledger, every byte of staged files and Parquet files, every column of Parquet "
    "files and DuckDB tables"
)


@dataclass
class Coverage:
    """The months that were looked at, `deep` or not, and what was passed over."""

    is_deep: bool
    warehouse: str | None
    """The warehouse's backend, where there is one."""
    months: int = 0
    without_data: Counter[str] = field(default_factory=Counter)
    """By export, how many months nothing is recorded of."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """By what was not looked at, in how many months."""

    def count(self, export: str, *, has_data: bool) -> None:
        """Count a month, which is looked at where it has data."""
        self.months += has_data
        if not has_data:
            self.without_data[export] += 1

    def lines(self) -> Iterator[str]:
        """Yield what a person should know of it, a line each."""
        looked_at = _DEEP if self.is_deep else _PLAIN
        if self.warehouse is not None:
            looked_at += f", and of {self.warehouse}"
        yield f"looked at {_months(self.months)}: {looked_at}"
        if not self.is_deep:
            yield "not looked at: cells, pages of Parquet files, staged files; --deep reads all"
        for what, months in self.passed_over.items():
            yield f"not looked at in {_months(months)}: {what}"
        if self.without_data:
            exports = ", ".join(
                f"{_months(months)} of {export}" for export, months in self.without_data.items()
            )
            yield f"without data: {exports}"


def _months(number: int) -> str:
    return f"{number:,} month" if number == 1 else f"{number:,} months"
