"""A DuckDB file that is damaged, from a newer DuckDB, or open elsewhere; and a wrong clock."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import duckdb

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.warehouses.duckdb import DuckDB

_HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"


def database(folder: Path, chance: Random) -> Iterator[str]:
    """The file is waited for, or what is wrong with it is said and how it is made anew; it is never
    written over. Moved away, it is made anew without hands."""
    chain = Chain(folder, chance, months=("2024-01", "2024-02"))
    must = MustHold(chain)
    chain.deliver()
    chain.run()
    while True:
        for name, damage in _DAMAGES.items():
            chain.deliver("2024-01")
            content = bytearray(chain.database.read_bytes())
            damage(content, chance)
            chain.database.write_bytes(content)
            code, said = chain.start().end()
            if code:
                assert "data/finops.duckdb" in said, said
                assert "move it away and run its months again" in said, said
                assert len(chain.database.read_bytes()) >= len(content)
                chain.database.rename(chain.folder / "moved-away.duckdb")
                must.forget("DuckDB")
                chain.run()
            must.settled()
            yield f"{name}, {'told, and made anew' if code else 'met by nobody'}"
        chain.deliver("2024-02")
        yield _held(chain, waits=chance.random() < 0.5)
        must.settled()


def clock(folder: Path, chance: Random) -> Iterator[str]:
    """A version that was loaded under a wrong clock is known as what it is under a right one."""
    chain = Chain(folder, chance, DuckDB(folder / "data/warehouse.duckdb"), months=("2024-01",))
    must = MustHold(chain)
    while True:
        days = chance.choice((-1, 1)) * chance.randint(1, 400)
        chain.deliver()
        chain.run()
        with duckdb.connect(str(chain.database)) as connection:
            connection.execute(
                "UPDATE finops_state.manifests SET loaded_at = loaded_at + to_days(?) "
                "WHERE state = 'loaded'",
                [days],
            )
        assert "  unchanged  " in chain.run(), "a version that is held was loaded again"
        chain.deliver()
        chain.run()
        must.settled()
        assert "  unchanged  " in chain.run(), "a version that is held was loaded again"
        yield f"clock {'ahead' if days > 0 else 'behind'}"


def _held(chain: Chain, *, waits: bool) -> str:
    """Another process has the file open."""
    words = [sys.executable, "-c", _HOLD, str(chain.database)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if waits:
            command = chain.start()
            assert not command.ended_within(chain.chance.uniform(2, 6))
            holder.kill()
            assert command.end()[0] == 0
        else:
            said = chain.run(code=1, FINOPS_DATABASE__DUCKDB__LOCK_WAIT_SECONDS="0")
            assert f"is still open in process {holder.pid} " in said, said
            holder.kill()
    chain.run()
    return "open elsewhere, " + ("waited for" if waits else "its process named")


def _flipped(content: bytearray, chance: Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _cut(content: bytearray, chance: Random) -> None:
    del content[chance.randrange(len(content)) :]


def _zeroed(content: bytearray, chance: Random) -> None:
    start = chance.randrange(len(content)) // 4096 * 4096
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))


def _newer(content: bytearray, chance: Random) -> None:
    """A later version of the storage, under the header's own checksum."""
    content[12:20] = struct.pack("<Q", 1000 + chance.randrange(1000))
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", content[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    content[:8] = struct.pack("<Q", checksum)


_DAMAGES: dict[str, Callable[[bytearray, Random], None]] = {
    "a bit flipped": _flipped,
    "cut short": _cut,
    "a block zeroed": _zeroed,
    "from a newer DuckDB": _newer,
}
