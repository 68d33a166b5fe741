"""A DuckDB file that is damaged, from a newer DuckDB, or open elsewhere; and a wrong clock."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import duckdb

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.places import query


def database(folder: Path, chance: Random) -> Iterator[str]:
    """The file is waited for, or what is wrong with it is said and how it is made anew; it is never
    written over. Moved away, it is made anew without hands."""
    chain = Chain(folder, chance, months=("2024-01", "2024-02"))
    chain.deliver()
    chain.run()
    while True:
        for name, damage in _DAMAGES.items():
            chain.deliver("2024-01")
            content = chain.database.read_bytes()
            damaged = damage(content, chance.randrange(len(content)))
            chain.database.write_bytes(damaged)
            code, output = chain.start().end()
            if code:
                assert "data/finops.duckdb" in output, output
                assert "move it away and run its months again" in output, output
                assert chain.database.stat().st_size >= len(damaged)
                chain.database.rename(chain.folder / "moved-away.duckdb")
                chain.forget("DuckDB")
                chain.run()
            chain.settled()
            yield f"{name}, {'told, and made anew' if code else 'met by nobody'}"
        chain.deliver("2024-02")
        yield _open_elsewhere(chain, waits=chance.random() < 0.5)


def clock(folder: Path, chance: Random) -> Iterator[str]:
    """A version that was loaded under a wrong clock is known as what it is under a right one."""
    chain = Chain(folder, chance, months=("2024-01",))
    while True:
        days = chance.choice((-1, 1)) * chance.randint(1, 400)
        chain.deliver()
        chain.run()
        query(
            chain.database,
            f"UPDATE finops_state.manifests SET loaded_at = loaded_at + to_days({days}) "
            "WHERE state = 'loaded'",
        )
        assert "  unchanged  " in chain.run(), "a version that is held was loaded again"
        chain.deliver()
        chain.run_and_settle()
        assert "  unchanged  " in chain.run(), "a version that is held was loaded again"
        yield f"clock {'ahead' if days > 0 else 'behind'}"


def _open_elsewhere(chain: Chain, *, waits: bool) -> str:
    """This process has the file open."""
    with closing(duckdb.connect(str(chain.database))) as holder:
        if waits:
            command = chain.start()
            assert not command.ended_within(chain.chance.uniform(2, 6))
            holder.close()
            assert command.end()[0] == 0
        else:
            output = chain.run(code=1, FINOPS_DATABASE__DUCKDB__LOCK_WAIT_SECONDS="0")
            assert f"is still open in process {os.getpid()} " in output, output
    chain.run_and_settle()
    return "open elsewhere, " + ("waited for" if waits else "its process named")


def _with_block_of_zeros(content: bytes, place: int) -> bytes:
    start = place // 4096 * 4096
    return content[:start] + bytes(4096) + content[start + 4096 :]


def _newer(content: bytes, place: int) -> bytes:
    """A later version of the storage, under the header's own checksum."""
    header = content[8:12] + struct.pack("<Q", 1000 + place % 1000) + content[20:4096]
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", header):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return struct.pack("<Q", checksum) + header + content[4096:]


_DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {  # of the content and a place in it
    "a bit flipped": lambda content, place: (
        content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
    ),
    "cut short": lambda content, place: content[:place],
    "a block zeroed": _with_block_of_zeros,
    "from a newer DuckDB": _newer,
}
