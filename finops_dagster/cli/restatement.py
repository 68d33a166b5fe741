"""What a restatement changed, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def restatement_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the replaced version, rows and exact cost that the metadata of `billing_table` has of
    a restatement; None where the version replaced none."""
    return {
        "replaced_version": metadata.get("replaced_version"),
        "rows_changed": metadata.get("rows_changed"),
        "cost_changed": metadata.get("cost_changed_exact"),
    }


def summary(row: Mapping[str, Any]) -> str | None:
    """Return the changes in a row in words, or None where it has none."""
    if row["replaced_version"] is None:
        return None
    rows, cost = row["rows_changed"], Decimal(row["cost_changed"])
    return f"{rows:+,} rows, {cost:+,.2f} against {row['replaced_version']}"
