"""What a restatement changed, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from finops_dagster.billing.money import plain


def restatement_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the replaced version, rows and exact cost that the metadata of `billing_table` has of
    a restatement; None where the version replaced none.

    Months that earlier releases loaded have a rounded cost and no replaced version.
    """
    cost = metadata.get("cost_changed")
    return {
        "replaced_version": metadata.get("replaced_version"),
        "rows_changed": metadata.get("rows_changed"),
        "cost_changed": metadata.get(
            "cost_changed_exact", None if cost is None else plain(Decimal(str(cost)))
        ),
    }


def summary(row: Mapping[str, Any]) -> str | None:
    """Return the changes in a row in words, or None where it has none."""
    if row["rows_changed"] is None:
        return None
    rows, cost = row["rows_changed"], Decimal(row["cost_changed"])
    against = row["replaced_version"] or "the version before"
    return f"{rows:+,} rows, {cost:+,.2f} against {against}"
