"""The vendor delivers the next version at a random moment of a month's run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.warehouses.duckdb import DuckDB


def manifests(folder: Path, chance: Random) -> Iterator[str]:
    """The run ends on one version, or with the reason why it cannot; the newer is loaded next."""
    chains = []
    for name in ("versioned", "overwritten"):
        warehouse = DuckDB(folder / name / "data/warehouse.duckdb")
        layout = Layout(overwrite=name == "overwritten")
        chain = Chain(folder / name, chance, warehouse, layout, months=("2024-01", "2024-02"))
        chains.append((name, chain, MustHold(chain)))
    while True:
        for name, chain, must in chains:
            for month in chain.months:
                chain.deliver(month)
            command = chain.start()
            is_late = command.ended_within(chance.uniform(0, chain.seconds))
            for month in chain.months:
                chain.deliver(month)
            code, said = command.end()
            assert "Traceback" not in said, said
            assert code == 0 or "failed: " in said, said
            must.whole()
            chain.run()
            must.settled()
            if not is_late:
                yield f"{name}, {'told' if code else 'one version'}"
