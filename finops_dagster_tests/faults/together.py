"""Many runs at once, of one month and of many, from terminals and from Dagster's daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.dagster_dev import dagster_dev, looks
from finops_dagster_tests.faults.chain import Chain, Command
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.finops import FINOPS
from finops_dagster_tests.warehouses.duckdb import DuckDB

_EIGHT = tuple(f"2024-{number:02}" for number in range(1, 9))


def together(folder: Path, chance: Random) -> Iterator[str]:
    """All of them end well, and every version of every month was loaded once."""
    folder = folder / "shells"
    chain = Chain(folder, chance, DuckDB(folder / "data/warehouse.duckdb"), months=_EIGHT)
    must = MustHold(chain)
    for month in chain.months:
        chain.deliver(month)
    while True:
        _all_end_well([chain.start(*_finops(month)) for month in chain.months])
        must.settled()
        yield "eight runs of eight months"
        month = chance.choice(chain.months)
        chain.deliver(month)
        shells = [_finops(month) if chance.random() < 0.7 else chain.dagster(month)]
        shells += [_finops(month) for _ in range(chance.randint(1, 2))]
        _all_end_well([chain.start(*shell) for shell in shells])
        must.settled()
        must.loaded_once()
        yield f"{len(shells)} runs of one month"
        for month in chain.months:
            chain.deliver(month)


def daemon(folder: Path, chance: Random) -> Iterator[str]:
    """The same while Dagster's daemon runs backfills of the months."""
    folder = folder / "daemon"
    chain = Chain(folder, chance, DuckDB(folder / "data/warehouse.duckdb"))
    must = MustHold(chain)
    with dagster_dev(folder, chain.whole_environment()) as ui:
        while True:
            for month in chain.months:
                chain.deliver(month)
            ui.backfill(*chain.months)
            shells = [chain.start(*_finops(month)) for month in chance.sample(chain.months, 2)]
            _all_end_well(shells)
            for look in looks():
                with look:
                    assert ui.runs() == dict.fromkeys(chain.months, "SUCCESS")
                    must.settled()
            must.loaded_once()
            yield "two terminals and a backfill"


def _finops(month: str) -> list[str]:
    return [*FINOPS, "aws", "run-pipeline", "--start-date", month, "--end-date", month]


def _all_end_well(commands: list[Command]) -> None:
    for code, said in [command.end() for command in commands]:
        assert code == 0, said
        assert "Traceback" not in said, said
