"""The month's Parquet files as DuckDB sees them; AWS writes amounts as doubles and tags as maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.columns import Sql, SqlType, file_literal
from finops_dagster.billing.errors import FileInvalid, first_line
from finops_dagster.billing.files.bill_files import BillFiles

MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetFiles(BillFiles):
    """Files with the same columns of the same types; `types` are those of `headers`, in order."""

    types: tuple[pa.DataType, ...]

    def scan(self) -> Sql:
        """One column a header, of the file's own type."""
        paths = ", ".join(file_literal(path) for path in self.paths)
        columns = ", ".join(f"c{position}" for position in range(len(self.headers)))
        return Sql(
            f"read_parquet([{paths}], hive_partitioning = false, binary_as_string = true) "
            f"AS files({columns})"
        )

    def cell(self, header: str, sql_type: SqlType, *, rounded: bool = False) -> Sql:
        """The value, read as its type. A double counts as its shortest decimal text, which is what
        the vendor rounded to a double: 29.27, not 29.26999999999999957."""
        how = Sql("rounded" if rounded or self.has_doubles(header) else "exact")
        position = self.positions[header]
        raw, own = Sql(f"c{position}"), self.types[position]
        is_text = self.own_type(header) is SqlType.TEXT and not pa.types.is_nested(own)
        is_nested = pa.types.is_nested(own) and not pa.types.is_map(own)
        text = Sql(f"CAST(to_json({raw}) AS VARCHAR)") if is_nested else raw
        match sql_type:
            case SqlType.MONEY if is_text or pa.types.is_floating(own) or _is_finer(own):
                return Sql(f"{how}_decimal(CAST({raw} AS VARCHAR))")
            case SqlType.TIME if is_text:
                return Sql(f"utc_timestamp({raw})")
            case SqlType.TEXT if pa.types.is_nested(own):
                return Sql(f"CAST(to_json({raw}) AS VARCHAR)")
            case SqlType.TEXT if pa.types.is_timestamp(own):
                return Sql(f"strftime({raw}, '%Y-%m-%dT%H:%M:%SZ')")
            case SqlType.TEXT_MAP if is_text or is_nested:
                return Sql(f"text_map({text})")
            case SqlType.MONEY_MAP if is_text or is_nested:
                return Sql(f"{how}_map(amount_map({text}))")
            case SqlType.MONEY_MAP if pa.types.is_map(own):
                return Sql(f"{how}_map({raw})")
            case _:
                return Sql(f"CAST({raw} AS {sql_type})")

    def own_type(self, header: str) -> SqlType | None:
        """What the file says of itself; a column of nothing but nulls can have any type."""
        own = self.types[self.positions[header]]
        if pa.types.is_floating(own) or pa.types.is_decimal(own) or pa.types.is_integer(own):
            return SqlType.MONEY
        if pa.types.is_timestamp(own) or pa.types.is_date(own):
            return SqlType.TIME
        if pa.types.is_map(own):
            amounts = pa.types.is_floating(own.item_type) or pa.types.is_decimal(own.item_type)
            return SqlType.MONEY_MAP if amounts else SqlType.TEXT_MAP
        return None if pa.types.is_null(own) else SqlType.TEXT

    def finer(self, header: str, sql_type: SqlType) -> Sql:
        """The value's text, where its type can have so many decimals at all."""
        position = self.positions[header]
        raw, own = Sql(f"c{position}"), self.types[position]
        if sql_type is SqlType.MONEY_MAP and pa.types.is_map(own):
            return Sql(f"finer_in_map({raw})")
        if sql_type is SqlType.MONEY_MAP:
            text = Sql(f"to_json({raw})") if pa.types.is_nested(own) else raw
            return Sql(f"finer_in_map(TRY(amount_map(CAST({text} AS VARCHAR))))")
        if pa.types.is_floating(own):
            return Sql(f"finer_double({raw})")
        return Sql(f"finer(CAST({raw} AS VARCHAR))")

    def has_doubles(self, header: str) -> bool:
        """As the column itself, as the values of a map, or as fields."""
        own = self.types[self.positions[header]]
        if pa.types.is_map(own):
            return bool(pa.types.is_floating(own.item_type))
        if pa.types.is_struct(own):
            return any(pa.types.is_floating(field.type) for field in own)
        return bool(pa.types.is_floating(own))

    def place(self, record: int) -> str:
        """Parquet has no lines."""
        return f"row {record}"


def _is_finer(own: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(own) and own.scale > 18)


def parquet_files(paths: Sequence[Path]) -> list[ParquetFiles]:
    """Read the schema of each file and put files with the same one together. Raises FileInvalid."""
    groups: dict[tuple[tuple[str, ...], tuple[pa.DataType, ...]], list[Path]] = {}
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise FileInvalid(f"{path}: no whole Parquet file: {first_line(error)}") from error
        types = tuple(t.value_type if pa.types.is_dictionary(t) else t for t in schema.types)
        groups.setdefault((tuple(schema.names), types), []).append(path)
    return [ParquetFiles(names, tuple(group), types) for (names, types), group in groups.items()]
