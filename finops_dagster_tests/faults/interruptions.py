"""What happens while a run goes on: kill -9, a newer version, another run, a folder that goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.warehouses.adapters import started
from finops_dagster_tests.warehouses.duckdb import DuckDB

_PLACES = {
    "data/staging": "",
    "data/parquet": "Parquet",
    "data/finops.duckdb": "DuckDB",
    "home": "",
}


def kills(folder: Path, chance: Random) -> Iterator[str]:
    """kill -9 at any moment, while months are restated. Half end in a DuckDB warehouse, half in
    PostgreSQL. Now and then the run that is to mend what the last one left is killed too; then one
    must do so without hands."""
    with ExitStack() as servers:
        postgresql = servers.enter_context(started("postgresql"))
        chains = [
            _loaded(folder / "duckdb", chance, Layout(overwrite=True)),
            Chain(folder / "postgresql", chance, postgresql),
        ]
        chains[1].deliver()
        all_held = [MustHold(chain) for chain in chains]
        while True:
            for chain, must in zip(chains, all_held, strict=True):
                chain.deliver(*chance.sample(chain.months, chance.randint(1, 3)))
                for _ in range(chance.randint(1, 3)):
                    dagster = chance.random() < 0.25
                    month = chain.of_month(chance.choice(chain.months), dagster=True)
                    process = chain.start(*(month if dagster else ()))
                    is_late = process.ended_within(chance.uniform(0, chain.seconds))
                    process.kill()
                    must.whole()
                    if not is_late:
                        yield f"{'dagster' if dagster else 'finops'}, {chain.folder.name}"
                chain.run()
                must.settled()


def manifests(folder: Path, chance: Random) -> Iterator[str]:
    """The vendor delivers the next version at a random moment: the run ends on one version, or with
    the reason why it cannot; the newer is loaded next."""
    layouts = {"versioned": Layout(), "overwritten": Layout(overwrite=True)}
    chains = {name: _loaded(folder / name, chance, layouts[name]) for name in layouts}
    all_held = {name: MustHold(chain) for name, chain in chains.items()}
    while True:
        for name, chain in chains.items():
            chain.deliver()
            command = chain.start()
            is_late = command.ended_within(chance.uniform(0, chain.seconds))
            chain.deliver()
            code, said = command.end()
            assert code == 0 or "failed: " in said, said
            all_held[name].whole()
            chain.run()
            all_held[name].settled()
            if not is_late:
                yield f"{name}, {'told' if code else 'one version'}"


def together(folder: Path, chance: Random) -> Iterator[str]:
    """Runs of eight months at once, then of one month: all of them end well, and every version of
    every month is loaded once."""
    eight = tuple(f"2024-{number:02}" for number in range(1, 9))
    chain = Chain(folder, chance, DuckDB(folder / "data/warehouse.duckdb"), months=eight)
    must = MustHold(chain)
    while True:
        chain.deliver()
        month = chance.choice(eight)
        of_one = [chain.of_month(month, dagster=chance.random() < 0.3) for _ in range(3)]
        for shells in (list(map(chain.of_month, eight)), of_one):
            for code, said in [command.end() for command in [chain.start(*s) for s in shells]]:
                assert code == 0, said
            must.settled()
            must.loaded_once()
            yield f"{len(shells)} runs of {len(set(map(tuple, shells)))} months"
            chain.deliver(month)


def vanishing(folder: Path, chance: Random) -> Iterator[str]:
    """The next run makes what is missing from what is left, also where it vanished under a run."""
    chain = _loaded(folder, chance)
    must = MustHold(chain)
    chain.run()
    while True:
        for path, place in _PLACES.items():
            during = chance.random() < 0.5
            chain.deliver(*chance.sample(chain.months, chance.randint(1, 3)))
            command = chain.start() if during else None
            if command is not None:
                command.ended_within(chance.uniform(0, chain.seconds))
            gone = chain.folder / path
            shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(True)
            if command is not None:
                command.end()
            must.forget(place)
            chain.run()
            must.settled()
            yield f"{path} gone{' under a run' if during else ''}"


def _loaded(folder: Path, chance: Random, layout: Layout | None = None) -> Chain:
    """A chain that ends in a DuckDB warehouse, and whose months are delivered."""
    warehouse = DuckDB(folder / "data/warehouse.duckdb")
    chain = Chain(folder, chance, warehouse, layout or Layout())
    chain.deliver()
    return chain
