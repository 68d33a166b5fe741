"""The mappings to FOCUS, by vendor and format."""

from __future__ import annotations

from collections.abc import Mapping

from finops_dagster.focus.aws_cur import AWS_CUR
from finops_dagster.focus.aws_focus import AWS_FOCUS
from finops_dagster.focus.azure_focus import AZURE_FOCUS
from finops_dagster.focus.azure_usage import AZURE_USAGE
from finops_dagster.focus.focus_files import FOCUS_FILES
from finops_dagster.focus.mapping import FocusMapping

MAPPINGS: Mapping[tuple[str, str], FocusMapping] = {
    ("aws", "cur1"): AWS_CUR,
    ("aws", "cur2"): AWS_CUR,
    ("aws", "focus"): AWS_FOCUS,
    ("azure", "actual"): AZURE_USAGE,
    ("azure", "focus"): AZURE_FOCUS,
    ("focus-files", "focus"): FOCUS_FILES,
}
"""The mapping of each format of each vendor; a format without one has no charges."""


def mapping_of(vendor: str, bill_format: str) -> FocusMapping | None:
    """Return the mapping of a vendor's format; None if it has none.

    `bill_format` is the format that the footer of the bill's file has, such as `cur2`.
    """
    return MAPPINGS.get((vendor, bill_format))
