"""Compare the charges of two exports of one month: derived ones, and a vendor's FOCUS export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql
from finops_dagster.focus.month import ChargesRecord, FocusDerivation, focus_lake
from finops_dagster.lake import parquet_relation

_KEYS = Sql("SubAccountId, ServiceName, ChargeCategory, BillingCurrency")


@dataclass(frozen=True)
class CostGroup:
    """The charges of an account, service, category and currency in two exports.

    Each pair has the value of the first export and that of the second one. `rows` are numbers of
    charges.
    """

    account: str | None
    service: str | None
    category: str | None
    currency: str | None
    rows: tuple[int, int]
    billed: tuple[Decimal, Decimal]
    effective: tuple[Decimal, Decimal]

    @property
    def differs(self) -> bool:
        """Whether BilledCost or EffectiveCost differs; the numbers of charges are not compared."""
        return self.billed[0] != self.billed[1] or self.effective[0] != self.effective[1]


def comparable_exports(
    derivation: FocusDerivation, exports: Iterable[str]
) -> Iterator[tuple[str, ChargesRecord]]:
    """Yield the exports whose charges should cost the same as those of `derivation`.

    Each comes with the record of its charges. Both have charges of the same month and of a common
    billing account, and exactly one of the two bills is in the format `focus`. Files in a store are
    downloaded. If charges cannot be read, raises duckdb.Error or the errors of
    `LakeFile.local_path`.
    """
    bill = derivation.bill_files[derivation.export].version()
    is_own = bill is not None and bill.format == "focus"
    for export in exports:
        record = ChargesRecord.from_file(focus_lake(derivation.lake).file(export, derivation.month))
        if record is None or _is_own_focus(derivation, export) == is_own:
            continue
        accounts = Sql(
            " INTERSECT ".join(
                f"SELECT BillingAccountId FROM {charges}"
                for charges in _charges(derivation, export)
            )
        )
        with derivation.duckdb.open_in_memory() as connection:
            if connection.execute(accounts).fetchone():
                yield export, record


def differing_groups(derivation: FocusDerivation, export: str) -> Sequence[CostGroup]:
    """Return the groups in which BilledCost or EffectiveCost differs from that of another export.

    Sorted by the larger one of the two differences, the largest first. The first values of each
    pair are those of `derivation`. Downloads files and raises errors as `comparable_exports`.
    """
    with derivation.duckdb.open_in_memory() as connection:
        groups = compare_charges(connection, *_charges(derivation, export))
    return [group for group in groups if group.differs]


def _is_own_focus(derivation: FocusDerivation, export: str) -> bool:
    bill = derivation.lake.file(export, derivation.month).version()
    return bill is not None and bill.format == "focus"


def _charges(derivation: FocusDerivation, export: str) -> tuple[Sql, Sql]:
    """Return what follows FROM to read the charges of the month, and those of another export."""
    other = focus_lake(derivation.lake).file(export, derivation.month)
    return parquet_relation(derivation.charges_file.local_path()), parquet_relation(
        other.local_path()
    )


def compare_charges(
    connection: duckdb.DuckDBPyConnection, first: Sql, second: Sql
) -> Sequence[CostGroup]:
    """Return all groups of two exports' charges, also those without a difference.

    `first` and `second` are what follows FROM to read the charges of each. Sorted by the larger one
    of the differences of BilledCost and EffectiveCost, the largest first. A group that one export
    lacks has 0 charges and costs of 0 there.
    """
    sides = Sql(
        " UNION ALL ".join(
            f"SELECT {side} AS side, {_KEYS}, BilledCost, EffectiveCost FROM {relation}"
            for side, relation in enumerate((first, second))
        )
    )
    sums = Sql(
        ", ".join(
            f"{total} FILTER (side = {side}) AS {name}{side}"
            for name, total in (
                ("charges", "count(*)"),
                ("billed", "sum(BilledCost)"),
                ("effective", "sum(EffectiveCost)"),
            )
            for side in (0, 1)
        )
    )
    rows = connection.execute(
        "SELECT *, greatest(abs(coalesce(billed0, 0) - coalesce(billed1, 0)), "
        "abs(coalesce(effective0, 0) - coalesce(effective1, 0))) AS difference "
        f"FROM (SELECT {_KEYS}, {sums} FROM ({sides}) GROUP BY ALL) "
        f"ORDER BY difference DESC, {_KEYS}"
    ).fetchall()
    return [_group(row) for row in rows]


def _group(row: tuple[Any, ...]) -> CostGroup:
    account, service, category, currency, rows0, rows1, *costs, _ = row
    billed0, billed1, effective0, effective1 = (cost or Decimal(0) for cost in costs)
    return CostGroup(
        account,
        service,
        category,
        currency,
        rows=(rows0, rows1),
        billed=(billed0, billed1),
        effective=(effective0, effective1),
    )
