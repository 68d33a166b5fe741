"""Faults of the DuckDB file (damaged, newer, open elsewhere) and of the clock."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import duckdb

from finops_dagster_tests.faults.project import FaultProject
from finops_dagster_tests.faults.stored_bills import query


def database(folder: Path, random: Random) -> Iterator[str]:
    """Damage the DuckDB file, or hold it open.

    A run waits for the file, or its error says what is wrong and what to do. It never writes over a
    damaged file. Once the file is moved away, the next run makes a new one.
    """
    project = FaultProject(folder, random, months=("2024-01", "2024-02"))
    project.deliver()
    project.run()
    while True:
        for name, damage in _DAMAGES.items():
            project.deliver("2024-01")
            content = project.database.read_bytes()
            damaged = damage(content, random.randrange(len(content)))
            project.database.write_bytes(damaged)
            code, output = project.start().end()
            if code:
                assert "data/finops.duckdb" in output, output
                assert "move it away and run its months again" in output, output
                assert project.database.stat().st_size >= len(damaged)
                project.database.rename(project.folder / "moved-away.duckdb")
                project.expect_lost("DuckDB")
                project.run()
            project.assert_newest()
            yield f"{name}, {'reported, and made again' if code else 'not read'}"
        project.deliver("2024-02")
        yield _open_elsewhere(project, waits=random.random() < 0.5)


def clock(folder: Path, random: Random) -> Iterator[str]:
    """Load a version under a wrong clock; under a right one it counts as loaded."""
    project = FaultProject(folder, random, months=("2024-01",))
    while True:
        days = random.choice((-1, 1)) * random.randint(1, 400)
        project.deliver()
        project.run()
        query(
            project.database,
            f"UPDATE finops_state.manifests SET loaded_at = loaded_at + to_days({days}) "
            "WHERE state = 'loaded'",
        )
        assert "  unchanged  " in project.run(), "a loaded version was loaded again"
        project.deliver()
        project.recover()
        assert "  unchanged  " in project.run(), "a loaded version was loaded again"
        yield f"clock {'ahead' if days > 0 else 'behind'}"


def _open_elsewhere(project: FaultProject, *, waits: bool) -> str:
    """Run the pipeline while this process has the file open."""
    with closing(duckdb.connect(str(project.database))) as holder:
        if waits:
            command = project.start()
            assert not command.ends_within(project.random.uniform(2, 6))
            holder.close()
            assert command.end()[0] == 0
        else:
            output = project.run(code=1, FINOPS_DATABASE__DUCKDB__LOCK_WAIT_SECONDS="0")
            assert f"is still open in process {os.getpid()} " in output, output
    project.recover()
    return "open elsewhere, " + ("waited for" if waits else "its process named")


def _with_block_of_zeros(content: bytes, position: int) -> bytes:
    start = position // 4096 * 4096
    return content[:start] + bytes(4096) + content[start + 4096 :]


def _newer(content: bytes, position: int) -> bytes:
    """Return the file with a later storage version, under a valid checksum of the header."""
    header = content[8:12] + struct.pack("<Q", 1000 + position % 1000) + content[20:4096]
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", header):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return struct.pack("<Q", checksum) + header + content[4096:]


_DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {  # of the content, at a position in it
    "a bit flipped": lambda content, position: (
        content[:position]
        + bytes([content[position] ^ 1 << position % 8])
        + content[position + 1 :]
    ),
    "cut short": lambda content, position: content[:position],
    "a block zeroed": _with_block_of_zeros,
    "from a newer DuckDB": _newer,
}
