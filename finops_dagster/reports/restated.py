"""Fills the restatements of a report: what they changed, by service and account."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from duckdb import DuckDBPyConnection

from finops_dagster.billing.restatement import CostChange, Restatement, summed_changes
from finops_dagster.focus.mappings import mapping_of
from finops_dagster.reports.document import Document
from finops_dagster.reports.sums import NONE
from finops_dagster.reports.versions import MonthOfCharges, ReportMonths

MOST_RESTATEMENTS, MOST_CHANGES = 24, 50
_ACCOUNT_POSITIONS = "SELECT lower(account), min(position) FROM account_lines GROUP BY ALL"
_PROVIDERS = "SELECT export, max(provider) FROM usage_sums GROUP BY ALL"


def add_restatements(
    connection: DuckDBPyConnection, files: ReportMonths, document: Document
) -> None:
    """Fill the document's `restatements` with the newest 24, the newest first.

    They are read from the footers of the bills. A restatement has an entry for each of its
    currencies that the document has too. The entry has the 50 largest changes in the currency. All
    other changes are added up in one without service and account. A service that no charge of the
    report has is added to the document's services. Amounts are decimals. Needs the tables of
    `add_lines` and `create_cost_and_usage_sums`.
    """
    newest = sorted(
        ((charges, restated) for charges in files.charges for restated in charges.restatements),
        key=lambda pair: pair[1].restated_at,
        reverse=True,
    )
    positions = _Positions(connection, document)
    for charges, restatement in newest[:MOST_RESTATEMENTS]:
        for total in restatement.changes_by_currency:
            if (currency := total.currency or NONE) in document["currencies"]:
                document["restatements"].append(
                    {
                        "export": charges.export.name,
                        "month": files.months.index(charges.month),
                        "restated_at": f"{restatement.restated_at:%Y-%m-%dT%H:%M:%SZ}",
                        "late": charges.is_late(restatement),
                        "currency": document["currencies"].index(currency),
                        "before": total.cost_before,
                        "after": total.cost_after,
                        "from": restatement.replaced_id,
                        "to": restatement.manifest_id,
                        "by_service": positions.table(charges, _changes(restatement, total)),
                    }
                )


def _changes(restatement: Restatement, total: CostChange) -> list[CostChange]:
    """Return the largest changes in the currency of `total`, and then the sum of all others."""
    changes = [c for c in restatement.changes if c.currency == total.currency]
    return [*changes[:MOST_CHANGES], *summed_changes(changes[MOST_CHANGES:])]


class _Positions:
    """The positions of services and accounts of bills in the lists of the document."""

    def __init__(self, connection: DuckDBPyConnection, document: Document) -> None:
        self._services: list[dict[str, Any]] = document["services"]
        self._providers: list[str] = document["providers"]
        self._accounts = dict(connection.execute(_ACCOUNT_POSITIONS).fetchall())
        self._provider_of = dict(connection.execute(_PROVIDERS).fetchall())

    def table(self, charges: MonthOfCharges, changes: Sequence[CostChange]) -> dict[str, list[Any]]:
        """Return changes as a table of the document, and add services that its list lacks."""
        return {
            "service": [None if c.is_sum else self._service(charges, c.service) for c in changes],
            "account": [None if c.is_sum else self._account(c.account) for c in changes],
            "before": [change.cost_before for change in changes],
            "after": [change.cost_after for change in changes],
        }

    def _account(self, account: str | None) -> int | None:
        return self._accounts.get((account or NONE).lower())

    def _service(self, charges: MonthOfCharges, code: str | None) -> int:
        """Return the position of a service, which a bill may have under a code."""
        name = _service_names(charges.export.vendor, charges.bill_format).get(code or "", code)
        provider = self._providers.index(self._provider_of[charges.export.name])
        for position, service in enumerate(self._services):
            if (service["name"], service["provider"]) == (name or NONE, provider):
                return position
        self._services.append({"name": name or NONE, "provider": provider, "category": None})
        return len(self._services) - 1


@cache
def _service_names(vendor: str, bill_format: str) -> Mapping[str, str]:
    """Return the name of each code that a bill has for a service; empty where it has names."""
    mapping = mapping_of(vendor, bill_format)
    for lookup in mapping.lookups if mapping else ():
        if lookup.name == "service" and lookup.keys == ("line_item_product_code",):
            with lookup.path.open(encoding="utf-8", newline="") as file:
                return {row["code"]: row["name"] for row in csv.DictReader(file)}
    return {}
