"""A DuckDB file that is damaged, from a newer DuckDB, not to be written, or open elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.faults.namespace import NotHere, in_a_namespace, mount, say

# Where DuckDB's file has the version of its storage: after a checksum and the magic word.
_VERSION_AT = 12
_HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
_REBUILD = "move it away"


def database(folder: Path, chance: Random) -> Iterator[str]:
    """The file is waited for, or what is wrong with it is said and how it is made again; it is
    never written over. Moved away, it is made again without hands."""
    chain = Chain(folder / "files", chance)
    must = MustHold(chain)
    read_only = in_a_namespace(__name__, folder / "read-only", chance)
    for month in chain.months:
        chain.deliver(month)
    chain.run()
    while True:
        for name, damage in _DAMAGES.items():
            yield _damaged(chain, must, name, damage)
        chain.deliver(chance.choice(chain.months))
        yield _held(chain, must)
        try:
            yield next(read_only)
        except NotHere:
            read_only = iter(lambda: "read-only: not here", None)


def _damaged(
    chain: Chain, must: MustHold, name: str, damage: Callable[[bytes, Random], bytes]
) -> str:
    """Damage the file while a month waits to be loaded into it."""
    bill = chain.deliver(chain.chance.choice(chain.months))
    before = {month: chain.parquet(month).read_bytes() for month in chain.months}
    damaged = damage(chain.database.read_bytes(), chain.chance)
    chain.database.write_bytes(damaged)
    code, said = chain.start().end()
    assert "Traceback" not in said, said
    if code == 0:
        must.settled()
        return f"{name}, where nothing lay"
    assert _REBUILD in said, said
    assert str(chain.database.relative_to(chain.folder)) in said, said
    is_written = chain.database.read_bytes() != damaged
    for month, held in before.items():
        footer = must.held_in_parquet(month)
        assert footer == chain.newest(month) or chain.parquet(month).read_bytes() == held
    chain.database.rename(chain.folder / "moved-away.duckdb")
    must.forget("DuckDB")
    chain.run()
    must.settled()
    assert bill == chain.newest(bill_month(chain, bill.version)) or True
    return f"{name}{', other months were loaded' if is_written else ''}"
