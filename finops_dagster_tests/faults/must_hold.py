"""What must hold after every fault, looked at by nobody's code but the libraries'."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
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
        self._hold(self.held())

    def _hold(self, places: dict[tuple[str, str], Bill | None]) -> None:
        for (place, month), held in places.items():
            before = self._seen.get((place, month), "")
            where = f"{month} in {place}"
            if held is None:
                assert not before, f"{where} had {before} and has nothing"
                continue
            assert held == self.chain.delivered[month].get(held.version), f"{where}: {held}"
            assert held.version >= before, f"{where} went from {before} to {held.version}"
            self._seen[place, month] = held.version

    def settled(self) -> None:
        """Each month is everywhere the newest that was delivered, and nothing lies about."""
        self.whole()
        for (place, month), held in self.held().items():
            newest = self.chain.newest(month)
            assert held == newest, f"{month} in {place}: {held}, but {newest} was delivered"
        self._nothing_is_left()

    def whole_but_for_the_ledger(self) -> None:
        """The same where the warehouse's ledger may be behind, until the next run."""
        self._hold(self.held(believe_the_ledger=False))

    def loaded_once(self) -> None:
        """No version of any month was loaded twice into the table."""
        with (
            TemporaryDirectory() as folder,
            duckdb.connect(str(_copied(self.chain.database, Path(folder)))) as connection,
        ):
            twice = connection.execute(
                "SELECT billing_month, manifest_id FROM finops_state.runs "
                "GROUP BY ALL HAVING count(*) > 1"
            ).fetchall()
        assert not twice, f"loaded twice: {twice}"

    def forget(self, place: str = "") -> None:
        """Somebody took away what a place held, or all places."""
        self._seen = {key: v for key, v in self._seen.items() if place and key[0] != place}

    def held(self, believe_the_ledger: bool = True) -> dict[tuple[str, str], Bill | None]:
        """What each place holds of each month that was delivered."""
        with TemporaryDirectory() as folder:
            # Of a copy: to open the file is to mend it after a crash, which is the chain's to do.
            database = _copied(self.chain.database, Path(folder))
            places: dict[str, Callable[[str], Bill | None]] = {
                "DuckDB": lambda month: self._in_duckdb(database, month),
                "Parquet": self.in_parquet,
            }
            warehouse = self.chain.warehouse
            if warehouse is not None:
                if isinstance(warehouse, DuckDB):
                    path = Path(warehouse.settings["warehouse_path"])
                    warehouse = DuckDB(_copied(path, Path(folder)))
                places["the warehouse"] = lambda month: _in_warehouse(
                    warehouse, month, believe_the_ledger
                )
            return {
                (place, month): look(month)
                for place, look in places.items()
                for month in self.chain.delivered
            }

    def _in_duckdb(self, database: Path, month: str) -> Bill | None:
        if not database.is_file():
            return None
        with duckdb.connect(str(database)) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            if (TABLE,) not in tables:
                return None
            held = _bill(
                connection.execute(
                    f"SELECT manifest_id, {_COST} FROM {TABLE} WHERE billing_month = ?::DATE",
                    [f"{month}-01"],
                ).fetchall()
            )
            said = connection.execute(
                "SELECT manifest_id, row_count, total_cost FROM finops_state.manifests "
                "WHERE billing_month = ?::DATE AND state = 'loaded'",
                [f"{month}-01"],
            ).fetchall()
        ledger = [Bill(*row) for row in said]
        assert ledger == ([held] if held else []), f"{month}: the ledger has {ledger}, not {held}"
        return held

    def in_parquet(self, month: str) -> Bill | None:
        """What the month's file of the lake holds, and its footer says."""
        path = self.chain.parquet(month)
        if not path.is_file():
            return None
        with duckdb.connect() as connection:
            held = _bill(
                connection.execute(
                    f"SELECT manifest_id, {_COST} FROM read_parquet(?)", [str(path)]
                ).fetchall()
            )
        words = pq.read_metadata(path).metadata
        footer = words[b"manifest_id"].decode(), Decimal(words[b"total_cost"].decode())
        assert held is not None
        assert footer == (held.version, held.cost), f"{month}: the footer has {footer}, not {held}"
        return held

    def _nothing_is_left(self) -> None:
        data = self.chain.folder / "data"
        parquet = {path for path in (data / "parquet").rglob("*") if path.is_file()}
        assert parquet == {self.chain.parquet(month) for month in self.chain.delivered}
        staged = {path for path in (data / "staging").rglob("*") if path.is_file()}
        left = staged - {path for month in self.chain.delivered for path in self._staged(month)}
        assert not left, f"left in the staging folder: {left}"
        with closing(sqlite3.connect(self.chain.folder / "home/history/runs.db")) as runs:
            unended = runs.execute("SELECT run_id, status FROM runs").fetchall()
        unended = [run for run in unended if run[1] not in _BLOCKS_NOBODY]
        assert not unended, f"runs that never ended: {unended}"

    def _staged(self, month: str) -> set[Path]:
        """What may lie in the staging folder of a month that is settled."""
        newest = self.chain.newest(month)
        assert newest is not None
        folder = self.chain.folder / "data/staging/acme" / month
        first, last = f"{month}-01", f"{_after(month)}-01"
        period = f"{first}-{last}".replace("-", "")
        manifest = f"acme-cur/{period[:8]}-{period[8:]}/acme-cur-Manifest.json"
        names = [Path(key).name for key in keys_of(self.chain.source / manifest)]
        version = folder / newest.version
        files = {version / name for name in [*names, "staged.jsonl", ".lock"]}
        month_files = {folder / name for name in ("manifest.json", "version.json", ".lock")}
        return month_files | files


def _bill(rows: list[tuple[Any, ...]]) -> Bill | None:
    """Rows of version and cost as one bill, which they must be."""
    versions = {version for version, _ in rows}
    assert len(versions) <= 1, f"a mix of {versions}"
    return Bill(versions.pop(), len(rows), sum((c for _, c in rows), Decimal(0))) if rows else None


def _in_warehouse(warehouse: Any, month: str, believe_the_ledger: bool) -> Bill | None:
    tables = warehouse.tables()
    if not {TABLE, f"{TABLE}_loads"} <= tables or _COST not in warehouse.columns(TABLE):
        return None
    held = _bill(warehouse.rows(TABLE, ("manifest_id", _COST), month))
    ledger = [row for row in warehouse.ledger(TABLE) if row[0] == month and row[3] == "loaded"]
    said = ledger[-1][1:3] if ledger else None
    if not believe_the_ledger:
        return held
    assert said == (held and (held.version, held.rows)), f"{month}: it says {said}, not {held}"
    return held


def _copied(database: Path, folder: Path) -> Path:
    """A DuckDB file and its log, as a crash would leave them."""
    for path in (database, database.with_name(f"{database.name}.wal")):
        if path.is_file():
            shutil.copy(path, folder)
    return folder / database.name


def _after(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}"
