"""A DuckDB file that is damaged, from a newer DuckDB, not to be written, or open elsewhere."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from finops_dagster_tests.faults.chain import Chain
from finops_dagster_tests.faults.must_hold import MustHold
from finops_dagster_tests.faults.namespace import in_a_namespace, mount, say

Damage = Callable[[bytearray, Random], None]
_HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"


def database(folder: Path, chance: Random) -> Iterator[str]:
    """The file is waited for, or what is wrong with it is said and how it is made anew; it is never
    written over. Moved away, it is made anew without hands."""
    chain = Chain(folder, chance, months=("2024-01", "2024-02"))
    must = MustHold(chain)
    for month in chain.months:
        chain.deliver(month)
    chain.run()
    while True:
        for name, damage in _DAMAGES.items():
            chain.deliver("2024-01")
            yield f"{name}, {_damaged(chain, must, damage)}"
        for waits in (True, False):
            chain.deliver("2024-02")
            yield _held(chain, must, waits=waits)


def read_only(folder: Path, chance: Random) -> Iterator[str]:
    """It is said, and the same run ends well when the file may be written."""
    return in_a_namespace(__name__, folder, chance)


def _damaged(chain: Chain, must: MustHold, damage: Damage) -> str:
    """Damage the file while a month waits to be loaded into it."""
    lake = {month: chain.parquet(month).read_bytes() for month in chain.months}
    content = bytearray(chain.database.read_bytes())
    damage(content, chain.chance)
    chain.database.write_bytes(content)
    code, said = chain.start().end()
    assert "Traceback" not in said, said
    if code == 0:
        must.settled()
        return "met by nobody"
    assert "data/finops.duckdb" in said, said
    assert "move it away and run its months again" in said, said
    for month, before in lake.items():
        now = chain.parquet(month).read_bytes()
        assert now == before or must.in_parquet(month) == chain.newest(month)
    assert len(chain.database.read_bytes()) >= len(content)
    chain.database.rename(chain.folder / "moved-away.duckdb")
    must.forget("DuckDB")
    chain.run()
    must.settled()
    return "told, and made anew"


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


_DAMAGES: dict[str, Damage] = {
    "a bit flipped": _flipped,
    "cut short": _cut,
    "a block zeroed": _zeroed,
    "from a newer DuckDB": _newer,
}


def _held(chain: Chain, must: MustHold, *, waits: bool) -> str:
    """Another process has the file open."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(chain.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
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
    must.settled()
    return "open elsewhere, " + ("waited for" if waits else "its process named")


def _not_to_be_written(folder: Path, chance: Random) -> Iterator[str]:
    chain = Chain(folder, chance, months=("2024-01",))
    must = MustHold(chain)
    chain.deliver("2024-01")
    chain.run()
    data = str(chain.database)
    while True:
        chain.deliver("2024-01")
        mount("--bind", data, data)
        mount("-o", "remount,bind,ro", data)
        said = chain.run(code=1)
        assert "data/finops.duckdb cannot be opened: " in said, said
        assert "Read-only file system" in said, said
        must.whole()
        subprocess.run(["umount", data], check=True)
        chain.run()
        must.settled()
        yield "not to be written"


if __name__ == "__main__":
    say(_not_to_be_written)
