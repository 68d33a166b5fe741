"""Derive a month's charges from its bill in the lake, reconcile them, and write them beside it.

`<parquet_dir>/focus/<export>/billing_month=2024-01/<export>-2024-01.parquet`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, SqlType, file_literal, literal, quoted
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import (
    BillError,
    ReconciliationError,
    StageMissing,
    first_line,
    reprocess_advice,
)
from finops_dagster.billing.money import (
    MeasuredTotals,
    Totals,
    decimal_text,
    exact_sum,
    reconcile,
)
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.entries import (
    COSTS,
    CURRENCY,
    FAULT_ADVICE,
    Entry,
    month_totals,
    reconcile_charges,
    totals_by_rule,
)
from finops_dagster.focus.mapping import FocusMapping
from finops_dagster.focus.query import FocusQuery, KindTotals
from finops_dagster.focus.specification import Specification
from finops_dagster.lake import (
    Lake,
    LakeFile,
    LakeReader,
    distinct_values_in_footer,
    footer_texts_of_version,
    null_columns,
    parquet_relation,
    replacing_lake_file,
    version_of_footer,
)
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DigestKind, month_digest

FOCUS_VERSION = "1.2"
FOCUS_FORMAT = f"focus-{FOCUS_VERSION}"
_MOST_UNKNOWN = 20


@dataclass(frozen=True)
class ChargesRecord:
    """The record of a month's charges, as the footer of their file has it.

    `version` has the version id of the bill, the number of charges and the sums of their costs; its
    headline cost is BilledCost. `mapping` is the version of the mapping. `bill_version_ids` are
    those of all bills from which the charges are derived, by export. `unknown` has, by lookup, the
    keys that the lookup lacks with the numbers of their line items: at most 20 keys of each lookup,
    those with the most line items.
    """

    version: LoadedVersion
    mapping: str
    bill_version_ids: Mapping[str, str]
    entries: Sequence[Entry] = ()
    unknown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def from_file(cls, file: LakeFile) -> ChargesRecord | None:
        """Return the record of a file; None if it is missing, damaged, or not one of charges."""
        texts = file.footer_texts() or {}
        version = version_of_footer(texts)
        if version is None or "mapping" not in texts:
            return None
        entries = [Entry.from_row(row) for row in json.loads(texts["entries"])]
        sources, unknown = (json.loads(texts[name]) for name in ("sources", "unknown"))
        return cls(version, texts["mapping"], sources, entries, unknown)

    @property
    def warehouse_version_id(self) -> str:
        """The version id of the charges in a warehouse's ledger.

        It has the version ids of all bills, then the mapping's version, separated by spaces.
        """
        return " ".join([*self.bill_version_ids.values(), self.mapping])

    def footer_texts(self, export: str) -> dict[str, str]:
        """Return the texts for the footer of the export's file; `from_file` reads them."""
        return {
            "export": export,
            **footer_texts_of_version(self.version),
            "mapping": self.mapping,
            "sources": json.dumps(self.bill_version_ids),
            "entries": json.dumps([entry.to_row() for entry in self.entries]),
            "unknown": json.dumps(self.unknown),
        }


AnyLake = TypeVar("AnyLake", bound=LakeReader)


def focus_lake(lake: AnyLake) -> AnyLake:
    """Return the lake of the charges, which is the folder `focus` of the lake of the bills."""
    return lake.in_folder("focus")


@dataclass(frozen=True)
class FocusDerivation:
    """Derives the charges of one month of an export.

    `exports` are the exports whose bills are read, by dataset: the export itself under the dataset
    "" or, where charges need two bills, both by the names of their datasets, such as an actual and
    an amortized one. The first one owns the charges.
    """

    lake: Lake
    duckdb: DuckDB
    mapping: FocusMapping
    exports: Mapping[str, str]
    month: BillingMonth

    @property
    def export(self) -> str:
        """The export that owns the charges."""
        return next(iter(self.exports.values()))

    @cached_property
    def bill_files(self) -> Mapping[str, LakeFile]:
        """The month's files of the bills, by export; they need not exist.

        In a store, they are snapshots of the first use, so that all is derived from one version.
        """
        exports = self.exports.values()
        return {export: self.lake.file(export, self.month).snapshot() for export in exports}

    @property
    def charges_file(self) -> LakeFile:
        """The month's file of charges, which need not exist."""
        return focus_lake(self.lake).file(self.export, self.month)

    def bill_versions(self) -> dict[str, LoadedVersion]:
        """Return the versions of the bills in the lake, by export.

        Raises StageMissing if the lake lacks one.
        """
        versions = {}
        for export, file in self.bill_files.items():
            version = file.version()
            if version is None:
                raise StageMissing(
                    f"{file.location} is missing or damaged, and the charges "
                    f"of {self.month} are derived from it; {reprocess_advice(export, self.month)}"
                )
            versions[export] = version
        return versions

    def up_to_date_record(self) -> ChargesRecord | None:
        """Return the record of the month's file if the file is up to date; otherwise None.

        It is up to date if `outdated_reason` is None, and if its rows add up to the totals in its
        footer; in a store, the checksum of the file is verified instead. None also for a missing or
        damaged file. Raises StageMissing if there is a record, but the lake lacks a bill, and
        duckdb.OutOfMemoryException.
        """
        file = self.charges_file.snapshot()
        record = ChargesRecord.from_file(file)
        if record is None or self.outdated_reason(record) is not None:
            return None
        if self.lake.is_in_store:  # Its file is verified without a download.
            return record if file.sha256() else None
        with self.duckdb.open_in_memory() as connection:
            try:
                totals = month_totals(
                    totals_by_rule(connection, parquet_relation(file.local_path()))
                )
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error:
                return None
        return record if totals.first_difference(record.version.totals) is None else None

    def outdated_reason(self, record: ChargesRecord) -> str | None:
        """Return why a record is out of date, as text for people; None if it is up to date.

        It is compared with the versions of the bills in the lake, and with the mapping. Raises
        StageMissing if the lake lacks a bill.
        """
        for export, version in self.bill_versions().items():
            if record.bill_version_ids.get(export) != version.manifest_id:
                return f"the bill of {export} has version {version.manifest_id}"
        if record.mapping != self.mapping.version:
            return f"the mapping is now {self.mapping.version}"
        return None

    def differing_columns(self) -> list[str]:
        """Derive the charges again, and return the columns in which the file's cells differ.

        Digests are compared, so the order of rows does not matter. A column with values that only
        one side has is among them. Empty if nothing differs. Writes nothing. Raises StageMissing if
        the lake lacks a bill, and duckdb.Error or BillError if a file is missing or cannot be read.
        """
        manifest_id = self.bill_versions()[self.export].manifest_id
        with self.duckdb.open_in_memory(preserve_insertion_order=False) as connection:
            charges = Sql(f"({self._query(connection, manifest_id).charges_sql()})")
            in_file = parquet_relation(self.charges_file.local_path())
            described = connection.execute(f"DESCRIBE FROM {in_file}").fetchall()
            # The charges have ENUMs where the file has texts.
            texts = (SqlType.TEXT, SqlType.TEXT_MAP)
            types = {name: str(t) for name, t, *_ in described if t in texts}
            prepare_casts(connection)
            derived, written = (
                month_digest(connection, relation, types, DigestKind.HASH)
                for relation in (charges, in_file)
            )
        return written.differing_columns(derived)

    @contextmanager
    def replacing_month(self, run_id: str) -> Iterator[ChargesRecord]:
        """Derive the month's charges, and write them to its file, in place of the old one.

        The block gets the new record, and runs before the replacement; on any error, also in the
        block, the old file stays. `run_id` is the run of Dagster that the footer records. Raises
        StageMissing if the lake lacks a bill, ReconciliationError if the charges do not add up to
        the bills, BillError if a bill cannot be read or was replaced meanwhile, and duckdb.Error
        if memory or disk is the cause.
        """
        versions, file = self.bill_versions(), self.charges_file.snapshot()
        with self.duckdb.open_in_memory(preserve_insertion_order=False) as connection:
            try:
                query = self._query(connection, versions[self.export].manifest_id)
                record = self._record(query, versions, run_id)
                footer = record.footer_texts(self.export)
                with replacing_lake_file(connection, query.charges_sql(), file, footer) as new:
                    written = month_totals(totals_by_rule(connection, parquet_relation(new.path)))
                    advice = reprocess_advice(self.export, self.month)
                    measured = MeasuredTotals(written, 0)
                    reconcile(file.location, record.version.totals, measured, advice)
                    yield record
                    self._require_bills(versions)
            except duckdb.Error as error:
                if memory_or_disk_problem(error):
                    raise
                paths = ", ".join(bill.location for bill in self.bill_files.values())
                raise BillError(
                    f"the charges of {self.export} {self.month} cannot be derived from {paths}: "
                    f"{first_line(error)}; {reprocess_advice(self.export, self.month)}"
                ) from error

    def _require_bills(self, versions: Mapping[str, LoadedVersion]) -> None:
        """Raise BillError unless the bills still have these versions.

        In a folder, a bill may be replaced while its charges are derived, or while this run waits
        for another one that derives them from a newer bill. In a store, the snapshots do not
        change, and the file of charges is replaced only if no other run has replaced it.
        """
        for export, version in self.bill_versions().items():
            if version.manifest_id != versions[export].manifest_id:
                raise BillError(
                    f"the bill of {export} {self.month} was replaced by version "
                    f"{version.manifest_id} while charges were derived from version "
                    f"{versions[export].manifest_id}; run the month again"
                )

    def _query(self, connection: DuckDBPyConnection, manifest_id: str) -> FocusQuery:
        connection.execute("SET TimeZone = 'UTC'")
        query = FocusQuery(
            connection,
            self.mapping,
            Specification.load(FOCUS_VERSION),
            {name: self._relation(export) for name, export in self.exports.items()},
            {
                "x_export": literal(self.export),
                "x_manifest_id": literal(manifest_id),
                "x_billing_month": Sql(f"DATE {literal(str(self.month.first_day))}"),
            },
            {
                name: distinct_values_in_footer(self.bill_files[export].local_path())
                for name, export in self.exports.items()
            },
        )
        query.prepare()
        return query

    def _relation(self, export: str) -> Sql:
        """Return what follows FROM to read a bill, without the columns that have no value."""
        path = self.bill_files[export].local_path()
        empty = ", ".join(map(quoted, sorted(null_columns(path))))
        excluded = Sql(f"EXCLUDE ({empty})") if empty else Sql("")
        return Sql(
            f"(SELECT * {excluded} FROM read_parquet({file_literal(path)}, "
            "hive_partitioning = false, file_row_number = true))"
        )

    def _record(
        self,
        query: FocusQuery,
        versions: Mapping[str, LoadedVersion],
        run_id: str,
    ) -> ChargesRecord:
        """Return the record of the month's charges, before they are written.

        Raises ReconciliationError if they do not add up to the bills.
        """
        bill = versions[self.export]
        kind_totals = query.totals_by_kind()
        self._require_all_line_items(versions, kind_totals)
        charges = query.charges_sql([*COSTS, CURRENCY])
        rule_totals = totals_by_rule(query.connection, Sql(f"({charges})"))
        entries = reconcile_charges(self.mapping, kind_totals, rule_totals)
        unknown = {name: dict(keys[:_MOST_UNKNOWN]) for name, keys in query.unknown_keys()}
        version = LoadedVersion(
            bill.manifest_id,
            month_totals(rule_totals),
            FOCUS_FORMAT,
            bill.file_count,
            bill.byte_count,
            run_id=run_id,
        )
        ids = {export: version.manifest_id for export, version in versions.items()}
        return ChargesRecord(version, self.mapping.version, ids, entries, unknown)

    def _require_all_line_items(
        self, versions: Mapping[str, LoadedVersion], kind_totals: Sequence[KindTotals]
    ) -> None:
        """Raise ReconciliationError unless the kinds have all rows of the bills, and their cost.

        The headline costs of a second bill are the amortized costs of the first one.
        """
        bill, *second_bills = versions.values()
        recorded = Totals(sum(v.totals.rows for v in versions.values()), bill.totals.cost)
        cost = exact_sum(kind.headline for kind in kind_totals)
        counted = Totals(sum(kind.rows for kind in kind_totals), cost)
        amortized = exact_sum(kind.amortized for kind in kind_totals)
        if counted != recorded or any(b.totals.cost != amortized for b in second_bills):
            raise ReconciliationError(
                f"the line items of {self.export} {self.month} have {counted} (amortized "
                f"{decimal_text(amortized)}), but the lake has {recorded}"
                + "".join(f" and {second.totals}" for second in second_bills)
                + f"; {FAULT_ADVICE}"
            )
