"""PostgreSQL: partitions and their locks, names of 63 bytes, rows of 8 kB, rights."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import FolderLake
from finops_dagster.pipeline.warehouse_table import month_file
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.digest import DigestKind
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.base import Warehouse
from finops_dagster.warehouses.month_file import WarehouseUnavailable
from finops_dagster_tests.cur import HEADERS, deliver, line_item, line_items
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import ROOT, Project
from finops_dagster_tests.servers.postgresql import PostgreSQLServer
from finops_dagster_tests.warehouses.conftest import MonthOf, refused
from finops_dagster_tests.warehouses.postgresql import PASSWORD, PostgreSQL
from finops_dagster_tests.warehouses.test_warehouses import (
    lake_digest,
    run_to_success,
    start_load,
)

TABLE = "aws_billing_data"
COST = "lineitem_unblendedcost"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server:
        yield server


@pytest.fixture(scope="module")
def adapter(server: PostgreSQLServer) -> Iterator[PostgreSQL]:
    adapter = PostgreSQL(server)
    with adapter.connection:
        yield adapter


@pytest.fixture
def postgresql(
    adapter: PostgreSQL, project: Project, monkeypatch: pytest.MonkeyPatch
) -> PostgreSQL:
    """Provide a database without the schema as the project's last stage."""
    monkeypatch.setenv("POSTGRESQL_PASSWORD", PASSWORD)
    adapter.reset()
    project.database = {"backend": "postgresql", "postgresql": dict(adapter.settings)}
    return adapter


def project_warehouse(project: Project, **settings: object) -> Warehouse:
    """Return the warehouse that the project's settings select, with these changes."""
    project.database["postgresql"] |= settings
    return open_warehouse(project.settings().database)


def month_totals(postgresql: PostgreSQL) -> list[Any]:
    return postgresql.query(
        f"SELECT to_char(billing_month, 'YYYY-MM'), count(*), sum({COST}) FROM finops.{TABLE} "
        "GROUP BY 1 ORDER BY 1"
    )


def test_only_the_partition_of_the_month_is_read(project: Project, postgresql: PostgreSQL) -> None:
    for month in ("2024-01", "2024-02"):
        deliver(project.put, month, [line_items(month, "1")])
        project.load(month)
    where = "billing_month >= DATE '2024-02-01' AND billing_month < DATE '2024-03-01'"
    plan = str(postgresql.query(f"EXPLAIN SELECT {COST} FROM finops.{TABLE} WHERE {where}"))
    assert f"{TABLE}_2024_02" in plan
    assert f"{TABLE}_2024_01" not in plan


def test_new_partition_is_analyzed(project: Project, postgresql: PostgreSQL) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1", "2")])
    project.load("2024-01")
    assert postgresql.query(
        "SELECT n_distinct FROM pg_stats WHERE (schemaname, tablename, attname) = (%s, %s, %s)",
        *("finops", f"{TABLE}_2024_01", COST),
    ) == [(-1,)]


def test_new_partition_has_the_indexes_of_the_table(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    warehouse.replace_month(month_of("v1", account="'1'"))
    postgresql.query(f"CREATE INDEX accounts ON finops.{TABLE} (account) WHERE account <> ''")
    postgresql.query(f"CREATE UNIQUE INDEX once ON finops.{TABLE} (billing_month, manifest_id)")
    warehouse.replace_month(month_of("v2"))
    warehouse.replace_month(month_of("v1", "2024-02", account="'1'"))
    attached = postgresql.query(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_inherits ON inhrelid = indexrelid "
        "ORDER BY 1"
    )
    names = [
        f"finops.{TABLE}_2024_{month:02}_new_{columns}_idx"
        for month in (1, 2)
        for columns in ("account", "billing_month_manifest_id")
    ]
    assert attached == [(name,) for name in names]


def in_background(function: Callable[[], object]) -> tuple[Thread, list[object]]:
    """Start a thread; at its end the list has the function's result or its exception."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = Thread(target=run)
    thread.start()
    return thread, outcome


def waiting_process(postgresql: PostgreSQL, lock_kind: str) -> int:
    """Wait until a process of the server waits for a lock of this kind, and return its id."""
    while True:
        rows = postgresql.query(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'finops_dagster' "
            "AND wait_event = %s",
            lock_kind,
        )
        if rows:
            return int(rows[0][0])


def test_reader_that_blocks_a_load_is_named_in_the_error(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project, lock_wait_seconds=1)
    first, second = month_of("v1"), month_of("v2", **{COST: "CAST(2 AS DECIMAL(38,18))"})
    warehouse.replace_month(first)
    with server.connect("acme", autocommit=False) as reader:
        reader.execute(f"SELECT 1 FROM finops.{TABLE}")
        message = rf"finops\.{TABLE} was in use for 1 s, .*process {reader.info.backend_pid};"
        with refused(message, WarehouseUnavailable):
            warehouse.replace_month(second)
        assert reader.execute(f"SELECT manifest_id FROM finops.{TABLE}").fetchall() == [("v1",)]
    assert postgresql.ledger(TABLE)[-1][1:4] == ("v2", 1, "failed")
    warehouse.replace_month(second)
    assert month_totals(postgresql) == [("2024-01", 1, 2)]


def test_a_reader_of_the_view_blocks_its_replacement_for_a_time_only(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    """New readers would wait behind it."""
    warehouse = project_warehouse(project, lock_wait_seconds=1)
    warehouse.replace_month(month_of("v1"))
    warehouse.create_union_view("all_bills", [TABLE], {COST: "MONEY"})
    with server.connect("acme", autocommit=False) as reader:
        reader.execute("SELECT 1 FROM finops.all_bills")
        with refused(r"finops\.all_bills was in use for 1 s", WarehouseUnavailable):
            warehouse.create_union_view("all_bills", [TABLE], {COST: "MONEY"})
    warehouse.create_union_view("all_bills", [TABLE], {COST: "MONEY"})


@pytest.mark.thorough
def test_load_that_waits_for_a_reader_does_not_block_other_readers(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project, lock_wait_seconds=60)
    warehouse.replace_month(month_of("v1"))
    with server.connect("acme", autocommit=False) as reader:
        reader.execute(f"SELECT 1 FROM finops.{TABLE}")
        thread, outcome = in_background(lambda: warehouse.replace_month(month_of("v2")))
        waiting_process(postgresql, "relation")
        assert month_totals(postgresql) == [("2024-01", 1, 1)]
        assert thread.is_alive()
    thread.join()
    assert not isinstance(outcome[0], Exception)
    assert postgresql.rows(TABLE, ("manifest_id",), "2024-01") == [("v2",)]


def test_reader_sees_the_old_month_or_the_new_one(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    files = [month_of("v1"), month_of("v2", more="'x'")]
    warehouse.replace_month(files[0])

    def load() -> None:
        for number in range(1, 9):
            warehouse.replace_month(files[number % 2])

    thread, outcome = in_background(load)
    versions = set()
    with server.connect("acme") as reader:
        while thread.is_alive():
            versions |= {
                tuple(reader.execute(f"SELECT manifest_id FROM finops.{TABLE}").fetchall())
            }
    assert outcome == [None]
    assert versions <= {(("v1",),), (("v2",),)}


def test_broken_connection_is_transient(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    warehouse.replace_month(month_of("v1"))
    with server.connect("acme", autocommit=False) as reader:
        reader.execute(f"SELECT 1 FROM finops.{TABLE}")
        thread, outcome = in_background(lambda: warehouse.replace_month(month_of("v2")))
        postgresql.query("SELECT pg_terminate_backend(%s)", waiting_process(postgresql, "relation"))
        thread.join()
    (error,) = outcome
    assert isinstance(error, WarehouseUnavailable)
    assert "terminating connection due to administrator command" in str(error)
    assert "\n" not in str(error)
    assert [row[1:4] for row in postgresql.ledger(TABLE)] == [
        ("v1", 1, "loaded"),
        ("v2", 1, "failed"),
    ]
    assert postgresql.tables() == {TABLE, f"{TABLE}_loads"}


@pytest.mark.thorough
def test_months_loaded_at_once_both_add_their_columns(
    project: Project, postgresql: PostgreSQL
) -> None:
    both = ("2024-01", "2024-02")
    for month, tag in zip(both, ("a", "b"), strict=True):
        header = f"resourceTags/user:{tag}"
        row = line_item(month, **{header.replace("/", "__"): "x"})
        deliver(project.put, month, [[row]], headers=(*row,))
        project.load(month, stages=["manifest", "staged_files", "billing_table", "parquet"])
    processes: list[subprocess.Popen[str]] = []
    for month in both:
        processes.append(start_load(project, month, "alive"))
        assert processes[-1].stdout
        assert processes[-1].stdout.readline() == "ready\n"
    run_to_success(processes)
    tags = ("resourcetags_user_a", "resourcetags_user_b")
    assert postgresql.rows(TABLE, tags, "2024-01") == [("x", None)]
    assert postgresql.rows(TABLE, tags, "2024-02") == [(None, "x")]


def test_table_with_a_long_name_is_replaced(project: Project, postgresql: PostgreSQL) -> None:
    project.export["table"] = "t" * 60
    for version in ("v1", "v2"):
        deliver(project.put, "2024-01", [line_items("2024-01", "1")], version=version)
        project.load("2024-01")
    assert postgresql.rows("t" * 60, ("manifest_id",), "2024-01") == [("v2",)]
    assert project.load("2024-01").outcomes()["warehouse_table"] == "unchanged"


def tags(*numbers: int) -> dict[str, str]:
    """Columns of tags, each with a value."""
    return {f"resourcetags_user_{number:04}": f"'value {number}'" for number in numbers}


def month_with_tags(month_of: MonthOf, version: str, month: str, columns: dict[str, str]) -> Any:
    return replace(
        month_of(version, month, **columns), user_defined_columns=tuple(tags(*range(2_000)))
    )


@pytest.mark.parametrize("column_names", ["flat", "athena"])
def test_only_tags_and_cost_categories_may_become_keys(project: Project, column_names: str) -> None:
    project.export["column_names"] = column_names
    own = ("resourceTags/user:Team", "resourceTags/user:team", "costCategory/Unit")
    deliver(project.put, "2024-01", [line_items("2024-01", "1")], headers=(*HEADERS, *own))
    project.load("2024-01")
    lake = FolderLake(Path("data/parquet"))
    file = month_file(project.first_export(), BillingMonth(2024, 1), lake, DuckDB())
    families = ("resource_tags", "resourcetags", "cost_category", "costcategory")
    assert len(file.user_defined_columns) == 3
    assert set(file.user_defined_columns) == {
        n for n in file.schema.names if n.startswith(families)
    }


@pytest.mark.thorough
def test_tags_beyond_the_column_limit_become_keys(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    empty = dict.fromkeys(tags(*range(1_600)), "NULL::VARCHAR")
    columns = empty | {"product_sku": "'a'"} | tags(3, 1_599) | {"resourcetags_user_1598": "''"}
    january = month_with_tags(month_of, "v1", "2024-01", columns)
    (warning,) = warehouse.replace_month(january).warnings
    assert "105 tags are keys of resource_tags_overflow" in warning
    assert "resourcetags_user_1495, resourcetags_user_1496, resourcetags_user_1497, ..." in warning
    columns_of_january = postgresql.columns(TABLE)
    assert len(columns_of_january) == 1_500
    assert "resourcetags_user_1494" in columns_of_january
    assert "resourcetags_user_1495" not in columns_of_january
    row = ("product_sku", "resourcetags_user_0003", "resource_tags_overflow")
    values = {"resourcetags_user_1598": "", "resourcetags_user_1599": "value 1599"}
    assert postgresql.rows(TABLE, row, "2024-01") == [("a", "value 3", values)]

    few = tags(3, 1_599, 1_700) | {"product_new": "'b'"}
    february = month_with_tags(month_of, "v1", "2024-02", few)
    (warning,) = warehouse.replace_month(february).warnings
    assert "2 tags are keys" in warning
    assert postgresql.columns(TABLE).keys() - columns_of_january.keys() == {"product_new"}
    values = {"resourcetags_user_1599": "value 1599", "resourcetags_user_1700": "value 1700"}
    row = ("product_new", "resourcetags_user_0003", "resource_tags_overflow")
    assert postgresql.rows(TABLE, row, "2024-02") == [("b", "value 3", values)]
    assert postgresql.rows(TABLE, row[2:], "2024-01") != [(None,)]

    for file in (january, february):
        assert warehouse.digest(file).differing_columns(lake_digest(file, DigestKind.MD5)) == []

    assert not warehouse.replace_month(month_with_tags(month_of, "v1", "2024-03", tags(3))).warnings
    assert postgresql.rows(TABLE, row[1:], "2024-03") == [("value 3", None)]


def test_new_tags_of_a_too_wide_row_become_keys(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    warehouse.replace_month(month_with_tags(month_of, "v1", "2024-01", tags(0, 1)))
    wide = month_with_tags(month_of, "v1", "2024-02", tags(*range(1_000)))
    (warning,) = warehouse.replace_month(wide).warnings
    assert "998 tags are keys" in warning
    row = ("resourcetags_user_0001", "resource_tags_overflow")
    ((column, keys),) = postgresql.rows(TABLE, row, "2024-02")
    assert column == "value 1"
    assert keys == {name: value.strip("'") for name, value in tags(*range(2, 1_000)).items()}
    assert [row[3] for row in postgresql.ledger(TABLE)] == ["loaded", "loaded"]
    assert wide.footer.is_same_version(warehouse.measured_version(wide))


SERVICE = "lineitem_productcode"


def change_in_postgresql(postgresql: PostgreSQL, project: Project) -> None:
    postgresql.query(f"UPDATE finops.{TABLE} SET {SERVICE} = 'AmazonEC3' WHERE {COST} = 1")


def change_in_duckdb(postgresql: PostgreSQL, project: Project) -> None:
    with duckdb.connect(str(project.database_file)) as connection:
        connection.execute(f"UPDATE {TABLE} SET {SERVICE} = 'AmazonEC3' WHERE {COST} = 1")


def change_in_parquet(postgresql: PostgreSQL, project: Project) -> None:
    rows = pq.read_table(project.parquet_path("2024-01"))
    names = pa.array(["AmazonEC3"] * len(rows))
    changed = rows.set_column(rows.schema.get_field_index(SERVICE), SERVICE, names)
    pq.write_table(changed, project.parquet_path("2024-01"))


@pytest.mark.thorough
def test_deep_verification_finds_the_copy_that_was_changed_by_hand(
    project: Project, postgresql: PostgreSQL, finops: Finops
) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1", "2")], version="v1")
    settings = [f"--database-config={key}={value}" for key, value in postgresql.settings.items()]
    where = ("--backend=postgresql", *settings)
    finops.run(*where, "aws", "run-pipeline")
    lake, table = str(project.parquet_path("2024-01").relative_to(project.folder)), f"table {TABLE}"
    reprocess = "finops state reprocess acme 2024-01"
    for change, message, command in (
        (change_in_postgresql, f"finops.{TABLE} and {table} differ in {SERVICE}", reprocess),
        (
            change_in_duckdb,
            f"{lake} and {table} differ in {SERVICE}; finops.{TABLE} agrees with the file",
            reprocess,
        ),
        (
            change_in_parquet,
            f"{lake} and {table} differ in {SERVICE}; the file was changed",
            "finops aws run-pipeline --export acme --start-date 2024-01 --end-date 2024-01",
        ),
    ):
        change(postgresql, project)
        assert finops.json(*where, "state", "verify") == []
        (row,) = finops.json(*where, "state", "verify", "--deep")
        assert (row["what_differs"], row["repair"]) == (message, command)
        done = finops.run(*where, *command.split()[1:])
        assert done.exit_code == 0, done.output
        deep = finops.run(*where, "state", "verify", "acme", "2024-01", "--deep")
        assert deep.stdout == "all agree\n"
        assert deep.stderr.endswith("Parquet files and DuckDB tables, and of postgresql\n")


def test_row_that_is_too_wide_without_tags_is_refused(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    with refused(r"row is too big: .* docs/warehouses\.md"):
        project_warehouse(project).replace_month(month_of("v1", **tags(*range(1_000))))
    assert postgresql.ledger(TABLE)[-1][3] == "failed"


@pytest.mark.parametrize(
    "cell",
    [
        "'a' || chr(0)",
        "MAP {'k': 'a' || chr(0)}::MAP(VARCHAR, VARCHAR)",
        "MAP {'k' || chr(0): 'a'}::MAP(VARCHAR, VARCHAR)",
    ],
    ids=["text", "value of a map", "key of a map"],
)
def test_null_character_in_text_is_refused(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf, cell: str
) -> None:
    with refused("column note has a character"):
        project_warehouse(project).replace_month(month_of("v1", note=cell))


def test_every_amount_is_loaded_exactly(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    """Past versions of the client wrote some amounts wrong, without an error."""
    some = random.Random(1)
    digits = {
        some.choice((1, -1)) * some.randrange(10 ** some.randrange(1, 39)) * 10**zeros
        for zeros in range(38)
        for _ in range(100)
    }
    amounts = [Decimal(d).scaleb(-18) for d in sorted(digits) if abs(d) < 10**38]
    listed = ", ".join(f"{amount:f}::DECIMAL(38,18)" for amount in amounts)
    project_warehouse(project).replace_month(month_of("v1", amount=f"unnest([{listed}])"))
    stored = postgresql.rows(TABLE, ("amount",), "2024-01")
    assert stored == [(amount,) for amount in amounts]


def test_map_of_amounts_is_never_text(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    warehouse = project_warehouse(project)
    amounts = "MAP {'edp': 0.000000000000000001}::MAP(VARCHAR, DECIMAL(38,18))"
    warehouse.replace_month(month_of("v1", discount=amounts))
    (warning,) = warehouse.replace_month(
        month_of("v1", "2024-02", discount="""'{"edp": 2.5}'""")
    ).warnings
    assert warning == "discount stays jsonb, although 2024-02 has text; nothing needs to be done"
    assert postgresql.rows(TABLE, ("discount",), "2024-02") == [({"edp": Decimal("2.5")},)]
    with refused(r"column discount of .* cannot be kept exactly as jsonb"):
        warehouse.replace_month(month_of("v2", discount="'none'"))


@pytest.mark.parametrize("cell", ["0.0000000000000000001", "NaN", "Infinity"])
def test_text_is_loaded_as_an_amount_only_if_exact(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf, cell: str
) -> None:
    warehouse = project_warehouse(project)
    warehouse.replace_month(month_of("v1", fee="1.5::DECIMAL(38,18)"))
    warehouse.replace_month(month_of("v1", "2024-02", fee="'0.000000000000000001000'"))
    assert postgresql.rows(TABLE, ("fee",), "2024-02") == [(Decimal("1e-18"),)]
    with refused(f"column fee of .* '{cell}' in .* cannot be kept exactly"):
        warehouse.replace_month(month_of("v2", fee=f"'{cell}'"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"sslmode": "verify-full", "host": "127.0.0.1"}, "Connection refused"),
        ({"host": "nowhere.invalid"}, 'could not translate host name "nowhere.invalid"'),
        ({"host": "/nowhere"}, "No such file or directory"),
    ],
    ids=["user", "database", "no server", "host", "folder"],
)
def test_connection_error_is_one_line(
    project: Project, postgresql: PostgreSQL, settings: dict[str, str], message: str
) -> None:
    port = 1 if "sslmode" in settings else 5432
    with refused(message, BillError, WarehouseUnavailable):
        project_warehouse(project, **settings, port=port).check_connection()


@pytest.mark.parametrize("password", [None, "wrong"])
def test_password_comes_from_the_environment_and_is_never_shown(
    project: Project,
    postgresql: PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
    password: str | None,
) -> None:
    deliver(project.put, "2024-01", [line_items("2024-01", "1")])
    if password:
        monkeypatch.setenv("POSTGRESQL_PASSWORD", password)
    else:
        monkeypatch.delenv("POSTGRESQL_PASSWORD")
    error = project.materialize("2024-01").error
    assert ("authentication failed" if password else "no password supplied") in error
    assert "POSTGRESQL_PASSWORD" in error
    assert "\n" not in error
    assert "wrong" not in error
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    if password is None:
        project.load("2024-01")


def test_missing_right_is_reported_in_one_line(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    postgresql.query("DROP USER IF EXISTS stranger")
    postgresql.query("CREATE USER stranger PASSWORD 'a-secret'")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTGRESQL_PASSWORD", "a-secret")
        with refused("permission denied for database acme; docs/warehouses.md lists the rights"):
            project_warehouse(project, user="stranger").replace_month(month_of("v1"))


def test_table_that_is_not_partitioned_is_refused(
    project: Project, postgresql: PostgreSQL, month_of: MonthOf
) -> None:
    project_warehouse(project).replace_month(month_of("v1"))
    postgresql.query(f"DROP TABLE finops.{TABLE}")
    postgresql.query(f"CREATE TABLE finops.{TABLE} (billing_month date)")
    with refused("is not partitioned"):
        project_warehouse(project).replace_month(month_of("v2"))
    assert postgresql.columns(TABLE) == {"billing_month": "date"}


def test_rights_of_the_docs_are_enough(
    project: Project, server: PostgreSQLServer, postgresql: PostgreSQL
) -> None:
    page = (ROOT / "docs/warehouses.md").read_text()
    with server.connect() as administrator:
        administrator.execute("CREATE DATABASE rights")
    with server.connect("rights") as administrator:
        administrator.execute(re.findall(r"```sh\n(CREATE USER finops.*?)```", page, re.DOTALL)[0])
        administrator.execute("ALTER USER finops PASSWORD 'x'; ALTER USER analyst PASSWORD 'x'")
    project.database["postgresql"] |= {"database": "rights", "user": "finops"}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTGRESQL_PASSWORD", "x")
        for version in ("v1", "v2"):
            deliver(project.put, "2024-01", [line_items("2024-01", "1")], version=version)
            project.load("2024-01")
    with server.connect("rights", user="analyst", password="x") as analyst:
        rows = analyst.execute(f"SELECT manifest_id FROM finops.{TABLE}").fetchall()
        assert rows == [("v2",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.execute(f"DELETE FROM finops.{TABLE}_loads")
