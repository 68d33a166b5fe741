"""A month's file whose table has some of the columns as text."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import BillError
from finops_dagster_tests.warehouses.conftest import MonthOf

COLUMNS = {
    "started": "TIMESTAMP '2024-01-03 04:05:06'",
    "tags": "MAP {'b': 'it''s \"x\"', 'a': NULL, '': ''}::MAP(VARCHAR, VARCHAR)",
    "discount": "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))",
    "ended": "TIMESTAMP '2024-01-04 00:00:00'",
    "no_tags": "MAP {}::MAP(VARCHAR, VARCHAR)",
    "null_tags": "NULL::MAP(VARCHAR, VARCHAR)",
    "amount": "-12345678901234567890.000000000000000001::DECIMAL(38,18)",
}
TEXTS = {
    "started": "2024-01-03T04:05:06Z",
    "tags": '{"b":"it\'s \\"x\\"","a":null,"":""}',
    "no_tags": "{}",
    "null_tags": None,
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def cells(path: Path) -> dict[str, object]:
    relation = duckdb.sql(f"FROM read_parquet('{path}', hive_partitioning = false)")
    (row,) = relation.fetchall()
    return dict(zip(relation.columns, row, strict=True))


def test_only_columns_with_a_target_type_change(month_of: MonthOf, temporary: Path) -> None:
    file = month_of("v1", **COLUMNS)
    with file.converted_copy(dict.fromkeys(TEXTS, SqlType.TEXT)) as written:
        assert cells(written.local_path()) == cells(file.local_path()) | TEXTS
        assert written.schema.names == file.schema.names
        assert all(field.nullable for field in pq.read_schema(written.local_path()))
        for name in set(file.schema.names) - set(TEXTS):
            assert written.schema.field(name).type == file.schema.field(name).type
        assert list(temporary.iterdir())
    assert not list(temporary.iterdir())


def test_file_without_differing_types_is_used_itself(month_of: MonthOf, temporary: Path) -> None:
    file = month_of("v1", **COLUMNS)
    with file.converted_copy(file.data_types) as written:
        assert written is file


def test_unreadable_file_leaves_no_temporary_file(month_of: MonthOf, temporary: Path) -> None:
    file = month_of("v1", **COLUMNS)
    whole = file.local_path().read_bytes()
    file.local_path().write_bytes(
        whole.replace(b"\x28\xb5\x2f\xfd", b"\0\0\0\0")
    )  # begins what zstd packs
    message = rf"^{file.local_path()} cannot be read: [^\n]+$"
    with pytest.raises(BillError, match=message), file.converted_copy({"started": SqlType.TEXT}):
        pass
    assert not list(temporary.iterdir())
