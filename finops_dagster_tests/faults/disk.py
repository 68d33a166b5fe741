"""A disk that is full: of all that the chain writes, or with Dagster's history on another one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.faults.namespace import in_a_namespace, mount, say
from finops_dagster_tests.warehouses.duckdb import DuckDB

_FULL = {
    "loading": r"failed: .*duckdb.*its disk is full",
    "staging": r"failed: .*data/staging.*its disk is full",
    "exporting": r"failed: .*data/parquet.*its disk is full",
    "telling Dagster": "Dagster's history in .* cannot be written",
}


def disk(folder: Path, chance: Random) -> Iterator[str]:
    """Each month stays what it was, one line says that the disk is full, and the next run makes up
    for it when there is room."""
    return in_a_namespace(__name__, folder, chance)


def _full(folder: Path, chance: Random) -> Iterator[str]:
    chains = [_on_a_small_disk(folder / name, chance) for name in ("all", "data")]
    (chains[1].folder / "home").symlink_to(folder / "home", target_is_directory=True)
    (folder / "home").mkdir()
    rounds = [_full_again(chain, chance) for chain in chains]
    while True:
        for one in rounds:
            yield next(one)


def _full_again(chain: Chain, chance: Random) -> Iterator[str]:
    must = MustHold(chain)
    for month in chain.months:
        chain.deliver(month, rows=2000)
    chain.run()
    must.settled()
    small = str(chain.folder)
    while True:
        used = shutil.disk_usage(small).used
        for month in chain.months:
            chain.deliver(month, rows=chance.randint(2000, 20000))
        room = chance.randrange(4 * 2 ** chance.randrange(10, 21))
        mount("-o", f"remount,size={used + room}", small)
        code, said = chain.start().end()
        must.whole()
        mount("-o", "remount,size=1G", small)
        chain.run()
        must.settled()
        if code:
            assert "Traceback" not in said, said
            yield f"{chain.folder.parent.name}: {_where(said)}"


def _where(said: str) -> str:
    """What could not be written when the disk was full."""
    return next(name for name, words in _FULL.items() if re.search(words, said))


def _on_a_small_disk(folder: Path, chance: Random) -> Chain:
    small = folder / "small"
    small.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "size=1G", "none", str(small))
    warehouse = DuckDB(small / "data/warehouse.duckdb")
    return Chain(small, chance, warehouse, vendor=folder / "source", months=("2024-01",))


if __name__ == "__main__":
    say(_full)
