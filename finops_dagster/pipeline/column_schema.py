"""The columns of tables and files in Dagster's UI, with what each of them means."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import dagster as dg
import pyarrow as pa

from finops_dagster.focus.lineage import bill_columns_of_charges
from finops_dagster.focus.month import FOCUS_VERSION, FocusDerivation
from finops_dagster.focus.specification import Specification
from finops_dagster.tables.digest import lake_type


def table_schema(types: Mapping[str, str], vendor: str, bill_format: str) -> dg.TableSchema:
    """Return the columns of a billing table for Dagster's UI, with types and descriptions.

    `types` has DuckDB's type of each column, `bill_format` is the format's name. A column of which
    nothing is known has no description.
    """
    is_focus = bill_format.startswith("focus")
    descriptions = _focus_descriptions() if is_focus else _descriptions(vendor)
    return _schema(types, {**descriptions, **_descriptions("added")})


def charges_schema(schema: pa.Schema, vendor: str) -> dg.TableSchema:
    """Return the columns of a file of charges for Dagster's UI, with types and descriptions."""
    types = {field.name: lake_type(field.type) for field in schema}
    vendor_columns = {f"x{key}": text for key, text in _descriptions(vendor).items()}
    return _schema(types, {**vendor_columns, **_focus_descriptions(), **_descriptions("added")})


def charges_lineage(derivation: FocusDerivation, charges: pa.Schema) -> dg.TableColumnLineage:
    """Return the columns of the bills that each column of the charges is derived from.

    `charges` is the schema of their file; those of the bills' Parquet files are read. A column that
    is derived from no other has no entry.
    """
    deps = defaultdict[str, list[dg.TableColumnDep]](list)
    for export, file in derivation.bill_files.items():
        types = {field.name: lake_type(field.type) for field in file.schema()}
        for column, names in bill_columns_of_charges(derivation.mapping, types).items():
            key = dg.AssetKey([export, "parquet"])
            deps[column] += [dg.TableColumnDep(key, name) for name in sorted(names)]
    return dg.TableColumnLineage({name: deps[name] for name in charges.names if name in deps})


def _schema(types: Mapping[str, str], descriptions: Mapping[str, str]) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(sql_type), description=descriptions.get(_key(name)))
            for name, sql_type in types.items()
        ]
    )


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _tables() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))


def _descriptions(table: str) -> Mapping[str, str]:
    return _tables().get(table, {})


@cache
def _focus_descriptions() -> Mapping[str, str]:
    columns = Specification.load(FOCUS_VERSION).columns
    return {_key(column.name): column.description for column in columns}
