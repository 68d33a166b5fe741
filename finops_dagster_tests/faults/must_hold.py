"""What must hold after every fault, looked at by nobody's code but the libraries'."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow.parquet as pq

from finops_dagster_tests.demo.delivered import keys_of
from finops_dagster_tests.faults.chain import TABLE, Bill, Chain
from finops_dagster_tests.warehouses.duckdb import DuckDB

_COST = "lineitem_unblendedcost"
# A run that Dagster's own command had only written down when it was killed keeps nobody's place.
_BLOCKS_NOBODY = {"SUCCESS", "FAILURE", "CANCELED", "NOT_STARTED"}


class MustHold:
    """The months of a chain, wherever they are held; remembers them from look to look."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._seen: dict[tuple[str, str], str] = {}

    def whole(self) -> None:
        """Each month is in each place wholly one version that was delivered, as Python counts it,
        and none that is older than the one that was seen there before."""
        for (place, month), held in self._held().items():
            before, where = self._seen.get((place, month), ""), f"{month} in {place}"
            if held is None:
                assert not before, f"{where} had {before} and has nothing"
                continue
            assert held == self.chain.delivered[month].get(held.version), f"{where}: {held}"
            assert held.version >= before, f"{where} went from {before} to {held.version}"
            self._seen[place, month] = held.version

    def settled(self) -> None:
        """Each month is everywhere the newest that was delivered, and nothing lies about."""
        self.whole()
        for (place, month), held in self._held().items():
            newest = self.chain.newest(month)
            assert held == newest, f"{month} in {place}: {held}, but {newest} was delivered"
        parquet = set(_files(self.chain.folder / "data/parquet"))
        assert parquet == {self.chain.parquet(month) for month in self.chain.delivered}
        bills = [path for path in _files(self.chain.folder / "data/staging") if ".csv" in path.name]
        left = {path for path in bills if not self._is_newest(path)}
        assert not left, f"left in the staging folder: {left}"
        with closing(sqlite3.connect(self.chain.folder / "home/history/runs.db")) as runs:
            found = runs.execute("SELECT run_id, status FROM runs").fetchall()
        unended = [run for run in found if run[1] not in _BLOCKS_NOBODY]
        assert not unended, f"runs that never ended: {unended}"

    def loaded_once(self) -> None:
        """No version of any month was loaded twice into the table."""
        with TemporaryDirectory() as folder:
            twice = _query(
                _copied(self.chain.database, folder),
                "SELECT billing_month, manifest_id FROM finops_state.runs "
                "GROUP BY ALL HAVING count(*) > 1",
            )
        assert not twice, f"loaded twice: {twice}"

    def forget(self, place: str) -> None:
        """Somebody took away what a place held."""
        self._seen = {key: version for key, version in self._seen.items() if key[0] != place}

    def _held(self) -> dict[tuple[str, str], Bill | None]:
        """What each place holds of each month that was delivered."""
        found = {}
        with TemporaryDirectory() as folder:
            # Of a copy: to open the file is to mend it after a crash, which is the chain's to do.
            database, warehouse = _copied(self.chain.database, folder), self.chain.warehouse
            if isinstance(warehouse, DuckDB):
                warehouse = DuckDB(_copied(Path(warehouse.settings["warehouse_path"]), folder))
            for month in self.chain.delivered:
                found["DuckDB", month] = _in_duckdb(database, month)
                found["Parquet", month] = self.in_parquet(month)
                if warehouse is not None:
                    found["the warehouse", month] = _in_warehouse(warehouse, month)
        return found

    def in_parquet(self, month: str) -> Bill | None:
        """What the month's file of the lake holds, and its footer says."""
        path = self.chain.parquet(month)
        if not path.is_file():
            return None
        table = pq.read_table(path, columns=["manifest_id", _COST], partitioning=None)
        held = _bill([(row["manifest_id"], row[_COST]) for row in table.to_pylist()])
        words = pq.read_metadata(path).metadata
        footer = words[b"manifest_id"].decode(), Decimal(words[b"total_cost"].decode())
        assert held, f"{path} has no rows"
        assert footer == (held.version, held.cost), f"{month}: the footer has {footer}, not {held}"
        return held

    def _is_newest(self, staged: Path) -> bool:
        """Whether a staged file is one of the newest version's."""
        month = staged.parts[-3]
        newest = self.chain.newest(month)
        (manifest,) = self.chain.bucket.glob(
            f"acme-cur/{month.replace('-', '')}01-*/*Manifest.json"
        )
        names = {Path(key).name for key in keys_of(manifest)}
        return newest is not None and staged.parent.name == newest.version and staged.name in names


def _in_duckdb(database: Path, month: str) -> Bill | None:
    if not database.is_file() or not _query(
        database, "FROM duckdb_tables() WHERE table_name = ?", TABLE
    ):
        return None
    of_month = "WHERE billing_month = ?::DATE"
    first = f"{month}-01"
    held = _bill(_query(database, f"SELECT manifest_id, {_COST} FROM {TABLE} {of_month}", first))
    ledger = "SELECT manifest_id, row_count, total_cost FROM finops_state.manifests"
    said = [
        Bill(*row) for row in _query(database, f"{ledger} {of_month} AND state = 'loaded'", first)
    ]
    assert said == ([held] if held else []), f"{month}: the ledger has {said}, not {held}"
    return held


def _in_warehouse(warehouse: Any, month: str) -> Bill | None:
    if not {TABLE, f"{TABLE}_loads"} <= warehouse.tables() or _COST not in warehouse.columns(TABLE):
        return None
    held = _bill(warehouse.rows(TABLE, ("manifest_id", _COST), month))
    ledger = [row for row in warehouse.ledger(TABLE) if row[0] == month and row[3] == "loaded"]
    said = ledger[-1][1:3] if ledger else None
    assert said == (held and (held.version, held.rows)), f"{month}: it says {said}, not {held}"
    return held


def _bill(rows: list[tuple[Any, ...]]) -> Bill | None:
    """Rows of version and cost as one bill, which they must be."""
    versions = {version for version, _ in rows}
    assert len(versions) <= 1, f"a mix of {versions}"
    return Bill(versions.pop(), len(rows), sum((c for _, c in rows), Decimal(0))) if rows else None


def _query(database: Path, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database)) as connection:
        return connection.execute(sql, parameters).fetchall()


def _copied(database: Path, folder: str) -> Path:
    """A DuckDB file and its log, as a crash would leave them."""
    for path in (database, database.with_name(f"{database.name}.wal")):
        if path.is_file():
            shutil.copy(path, folder)
    return Path(folder) / database.name


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
