"""kill -9 at any moment of the chain, while months are restated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.warehouses.adapters import started
from finops_dagster_tests.warehouses.duckdb import DuckDB


def kills(folder: Path, chance: Random) -> Iterator[str]:
    """Half of them end in a DuckDB warehouse, half in PostgreSQL. Now and then the run that is to
    mend what the last one left is killed too; then one must do so without hands."""
    with ExitStack() as servers:
        chains = []
        for name in ("duckdb", "postgresql"):
            warehouse = (
                DuckDB(folder / name / "data/warehouse.duckdb")
                if name == "duckdb"
                else servers.enter_context(started(name))
            )
            layout = Layout(overwrite=name == "duckdb")
            chain = Chain(folder / name, chance, warehouse, layout)
            for month in chain.months:
                chain.deliver(month)
            chains.append((chain, MustHold(chain)))
        while True:
            for chain, must in chains:
                yield from _until_one_ends(chain, must, chance)


def _until_one_ends(chain: Chain, must: MustHold, chance: Random) -> Iterator[str]:
    assert chain.warehouse is not None
    chain.restate()
    for _ in range(chance.randint(1, 3)):
        month = chance.choice(chain.months)
        command = "finops" if chance.random() < 0.75 else "dagster"
        process = chain.start(*(chain.dagster(month) if command == "dagster" else ()))
        is_late = process.ended_within(chance.uniform(0, chain.seconds))
        process.kill()
        must.whole()
        if not is_late:
            yield f"{command}, {chain.warehouse.backend}"
    chain.run()
    must.settled()
