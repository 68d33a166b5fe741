"""The names that AWS gives CUR columns for Athena, in Parquet and in CUR 2.0."""

import re
from collections.abc import Iterable


def athena_name(text: str) -> str:
    """Put an underscore before every capital and for all but letters and digits, never two.

    `lineItem/UnblendedCost` is `line_item_unblended_cost`, `reservation/ReservationARN` is
    `reservation_reservation_a_r_n`, and `user:cost-center` is `user_cost_center`.
    """
    split = re.sub(r"([A-Z])", r"_\1", text).lower()
    return re.sub(r"[^a-z0-9]+", "_", split).strip("_")


def athena_names(headers: Iterable[str]) -> dict[str, str]:
    """Name headers. Tag keys are free text: the second one of a name is left out."""
    headers_by_name: dict[str, str] = {}
    for header in headers:
        headers_by_name.setdefault(athena_name(header), header)
    return {header: name for name, header in headers_by_name.items()}
