"""What happens while a run goes on: kill -9, a newer version, another run, a folder that goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster.demo.export import Layout
from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.warehouses.adapters import running_adapter

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
    with running_adapter("postgresql") as postgresql:
        chains = [
            Chain(folder / "duckdb", chance, layout=Layout(overwrite=True)),
            Chain(folder / "postgresql", chance, postgresql),
        ]
        for chain in chains:
            chain.deliver()
        while True:
            for chain in chains:
                chain.deliver_some()
                for _ in range(chance.randint(1, 3)):
                    dagster = chance.random() < 0.25
                    month = chain.of_month(chance.choice(chain.months), dagster=True)
                    process, is_late = chain.start_and_wait(*(month if dagster else ()))
                    process.kill()
                    chain.whole()
                    if not is_late:
                        yield f"{'dagster' if dagster else 'finops'}, {chain.folder.name}"
                chain.run_and_settle()


def manifests(folder: Path, chance: Random) -> Iterator[str]:
    """The vendor delivers the next version at a random moment: the run ends on one version, or with
    the reason why it cannot; the newer is loaded next."""
    layouts = {"versioned": Layout(), "overwritten": Layout(overwrite=True)}
    chains = [Chain(folder / name, chance, layout=layouts[name]) for name in layouts]
    while True:
        for chain in chains:
            chain.deliver()
            command, is_late = chain.start_and_wait()
            chain.deliver()
            code, output = command.end()
            assert code == 0 or "failed: " in output, output
            chain.whole()
            chain.run_and_settle()
            if not is_late:
                yield f"{chain.folder.name}, {'told' if code else 'one version'}"


def together(folder: Path, chance: Random) -> Iterator[str]:
    """Runs of eight months at once, then of one month: all of them end well, and every version of
    every month is loaded once."""
    eight = tuple(f"2024-{number:02}" for number in range(1, 9))
    chain = Chain(folder, chance, months=eight)
    while True:
        chain.deliver()
        month = chance.choice(eight)
        of_one = [chain.of_month(month, dagster=chance.random() < 0.3) for _ in range(3)]
        for shells in (list(map(chain.of_month, eight)), of_one):
            for code, output in [command.end() for command in [chain.start(*s) for s in shells]]:
                assert code == 0, output
            chain.settled()
            chain.loaded_once()
            yield f"{len(shells)} runs of {len(set(map(tuple, shells)))} months"
            chain.deliver(month)


def vanishing(folder: Path, chance: Random) -> Iterator[str]:
    """The next run makes what is missing from what is left, also where it vanished under a run."""
    chain = Chain(folder, chance)
    chain.deliver()
    chain.run()
    while True:
        for path, place in _PLACES.items():
            chain.deliver_some()
            command = chain.start_and_wait()[0] if chance.random() < 0.5 else None
            gone = chain.folder / path
            shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(True)
            if command is not None:
                command.end()
            chain.forget(place)
            chain.run_and_settle()
            yield f"{path} gone{' under a run' if command else ''}"
