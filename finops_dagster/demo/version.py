"""Which refresh of which month an example bill is."""

from dataclasses import dataclass
from datetime import date

from finops_dagster.billing.months import BillingMonth

LATE_EVERY = 500  # a restated month ends in one late refund or credit for so many rows


@dataclass(frozen=True)
class Version:
    """One refresh of one billing month.

    `month` is its first day, `assembly_id` the refresh's name such as "20240203T050312Z", `rows`
    the exact number of data rows over all `parts` (headers not counted). Rows fewer than parts
    are legal, and no rows at all: AWS then writes headers alone.

    `restated` is the month as AWS rewrites it after its end. Its last `late_rows` rows are
    refunds and credits that came late, every row has its invoice id, and about one usage row in
    400 has 5 % more usage (unless a machine cannot run longer than its hour). Its other rows are
    the first rows of the version before: restate 10,000 rows as 10,015, and 21 are late and 6 of
    the former rows are gone. As at AWS, line item ids are new in every version.
    """

    month: date
    assembly_id: str
    rows: int
    parts: int = 2
    restated: bool = False

    def __post_init__(self) -> None:
        """Refuse what no bill can be."""
        if self.month.day != 1:
            raise ValueError(f"month must be the first day of a month, not {self.month}")
        if self.rows < 0 or self.parts < 1:
            raise ValueError(f"need rows >= 0 and parts >= 1, not {self.rows} and {self.parts}")

    @property
    def late_rows(self) -> int:
        """Return how many rows at the end AWS added after the month's end."""
        return -(-self.rows // LATE_EVERY) if self.restated else 0

    @property
    def next_month(self) -> date:
        """Return the first day after the billing period."""
        return BillingMonth.of(self.month).next.first_day
