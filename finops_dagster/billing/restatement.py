"""What a restatement changed, which is what people ask about first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from finops_dagster.billing.money import Totals

Costs = Sequence[tuple[str, Decimal]]
_MOVES = 5


@dataclass(frozen=True)
class Restatement:
    """A version of a month against the version that it replaced: totals, and cost by service."""

    manifest_id_before: str
    before: Totals
    now: Totals
    services_before: Costs
    services_now: Costs

    @property
    def rows(self) -> int:
        """How many rows the month has gained."""
        return self.now.rows - self.before.rows

    @property
    def cost(self) -> Decimal:
        """How much cost the month has gained."""
        return self.now.cost - self.before.cost

    def largest_moves(self) -> list[tuple[str, Decimal, Decimal]]:
        """The five services whose cost moved most, the largest move first: name, before, now."""
        before, now = dict(self.services_before), dict(self.services_now)
        moves = [
            (service, before.get(service, Decimal(0)), now.get(service, Decimal(0)))
            for service in before | now
        ]
        moved = [move for move in moves if move[1] != move[2]]
        return sorted(moved, key=lambda move: (-abs(move[2] - move[1]), move[0]))[:_MOVES]
