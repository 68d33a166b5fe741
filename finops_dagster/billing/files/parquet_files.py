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

    def cell(self, header: str, sql_type: SqlType) -> Sql:
        """The value, read as its type. A double counts as its shortest decimal text, which is what
        the vendor rounded to a double: 29.27, not 29.26999999999999957."""
        position = self.positions[header]
        raw, own = Sql(f"c{position}"), self.types[position]
        is_text = self.own_type(header) is SqlType.TEXT and not pa.types.is_nested(own)
        is_nested = pa.types.is_nested(own) and not pa.types.is_map(own)
        text = Sql(f"CAST(to_json({raw}) AS VARCHAR)") if is_nested else raw
        match sql_type:
            case SqlType.MONEY if pa.types.is_floating(own):
                return Sql(f"decimal_of_double({raw})")
            case SqlType.MONEY if is_text or (pa.types.is_decimal(own) and own.scale > 18):
                return Sql(f"exact_decimal(CAST({raw} AS VARCHAR))")
            case SqlType.TIME if is_text:
                return Sql(f"utc_timestamp({raw})")
            case SqlType.TEXT if pa.types.is_nested(own):
                return Sql(f"CAST(to_json({raw}) AS VARCHAR)")
            case SqlType.TEXT if pa.types.is_timestamp(own):
                return Sql(f"strftime({raw}, '%Y-%m-%dT%H:%M:%SZ')")
            case SqlType.TEXT_MAP if is_text or is_nested:
                return Sql(f"text_map({text})")
            case SqlType.MONEY_MAP if is_text or is_nested:
                return Sql(f"money_map({text})")
            case SqlType.MONEY_MAP if pa.types.is_map(own) and pa.types.is_floating(own.item_type):
                return Sql(
                    f"map_from_entries(list_transform(map_entries({raw}), lambda entry: "
                    "{'key': entry.key, 'value': decimal_of_double(entry.value)}))"
                )
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

    def rounds(self, header: str) -> Sql | None:
        """Whether a double has more than 18 decimals, as the quotient of an upfront fee can."""
        position = self.positions[header]
        if not pa.types.is_floating(self.types[position]):
            return None
        return Sql(f"CAST(decimal_of_double(c{position}) AS DOUBLE) <> c{position}")

    def place(self, record: int) -> str:
        """Parquet has no lines."""
        return f"row {record}"


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
