"""The stage of the charges: what it derives, when it does no work, and what a failure leaves."""

import shutil
from decimal import Decimal

import dagster as dg
import duckdb
import pytest

from finops_dagster.billing.columns import Sql
from finops_dagster.focus.mappings import MAPPINGS
from finops_dagster.focus.month import ChargesRecord
from finops_dagster.lake import FolderFile, parquet_relation, replacing_lake_file
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import SETTINGS, Project
from finops_dagster_tests.small_mapping import small_mapping, taxed


def charges(project: Project, columns: str, month: str = "2024-01") -> list[tuple[object, ...]]:
    """Return columns of the month's charges, sorted."""
    path = project.focus_path(month)
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{path}') ORDER BY ALL").fetchall()


def test_a_month_becomes_charges_of_its_version_in_the_same_run(focus: Project) -> None:
    focus.deliver(taxed("0.1", "2", tax="0.000000000000000001"))
    run = focus.load()
    assert run.data_versions() == {"v1"}
    assert run.outcomes()["focus"] == "derived"
    assert charges(focus, "BilledCost, x_manifest_id, x_export, x_rule, x_source_line_items") == [
        (Decimal("0.1"), "v1", "acme", "usage", ["abc"]),
        (Decimal(2), "v1", "acme", "usage", ["abc"]),
    ]
    metadata = run.metadata("focus")
    assert metadata["dagster/partition_row_count"] == 2
    assert metadata["total_cost_exact"] == metadata["effective_cost_exact"] == "2.1"
    assert metadata["mapping"] == small_mapping().version
    assert metadata["sources"] == "acme v1"
    assert metadata["path"] == str(focus.focus_path().relative_to(focus.folder))
    assert metadata["entries"].splitlines()[2:] == [
        "| tax | taxes are no charges here | USD | 1 | 0.000000000000000001 "
        "| 0.000000000000000001 |"
    ]
    assert run.checks()["focus.adds_up"]
    lineage = metadata["dagster/column_lineage"].deps_by_column
    parquet = dg.AssetKey(["acme", "parquet"])
    cost = [dg.TableColumnDep(parquet, "lineitem_unblendedcost")]
    assert lineage["BilledCost"] == cost
    assert lineage["Tags"] == [dg.TableColumnDep(parquet, "lineitem_productcode")]
    assert "ChargeCategory" not in lineage, "it is a constant of the mapping"


def test_broken_rules_of_focus_are_listed_and_do_not_stop_the_run(focus: Project) -> None:
    focus.deliver("1")
    first, second = focus.load(), focus.load()
    for run in (first, second):
        assert not run.checks()["focus.focus_conforms"]
        table = str(run.metadata("focus")["broken_rules"])
        # The small mapping has no such column.
        assert "| `AvailabilityZone.present` |" in table
        assert run.metadata("focus")["rules_broken"] > 1
    assert first.metadata("focus")["broken_rules"] == second.metadata("focus")["broken_rules"]


def test_a_month_of_the_same_version_and_mapping_is_not_derived_again(focus: Project) -> None:
    focus.deliver("1")
    focus.load()
    written = focus.focus_path().stat().st_mtime_ns
    run = focus.load()
    assert run.outcomes()["focus"] == "unchanged"
    assert run.metadata("focus")["total_cost_exact"] == "1"
    assert focus.focus_path().stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["version", "mapping", "damage", "loss"])
@pytest.mark.quick("loss", "mapping")
def test_a_month_is_derived_again_when_something_changed(
    focus: Project, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    focus.deliver("1")
    focus.load()
    version, mapping = "v1", small_mapping()
    if change == "version":
        version = "v2"
        focus.deliver("1", "1", version=version)
    elif change == "mapping":
        mapping = small_mapping("newer")
        monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), mapping)
    elif change == "damage":
        focus.focus_path().write_bytes(b"PAR1")
    else:
        focus.focus_path().unlink()
    run = focus.load()
    assert run.outcomes()["focus"] == "derived"
    record = ChargesRecord.from_file(FolderFile(focus.focus_path()))
    assert record is not None
    assert (record.version.manifest_id, record.mapping) == (version, mapping.version)


@pytest.mark.thorough
def test_charges_that_do_not_add_up_leave_the_bill_loaded_and_its_warehouse_running(
    focus: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    focus.database = {"duckdb": {"warehouse_path": str(focus.folder / "data/warehouse.duckdb")}}
    focus.deliver("1")
    focus.load()
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping(moved=""))
    focus.deliver(taxed("1", tax="0.5"), version="v2")
    run = focus.materialize()
    assert not run.success
    assert (
        "the charges of the kind 'tax' differ from the bill, which has BilledCost 0.5" in run.error
    )
    assert "; the file of charges keeps version v1" in run.error
    assert not run.checks()["focus.adds_up"]
    assert run.outcomes() == {
        "manifest": "read",
        "staged_files": "staged",
        "billing_table": "loaded",
        "parquet": "exported",
        "warehouse_table": "loaded",
    }
    assert charges(focus, "BilledCost, x_manifest_id") == [(1, "v1")]
    assert not list(focus.folder.rglob("*.part*"))


def test_the_warehouse_comes_before_the_charges(focus: Project) -> None:
    focus.database = {"duckdb": {"warehouse_path": str(focus.folder / "data/warehouse.duckdb")}}
    focus.deliver("1")
    assert focus.load().stages()[-3:] == ["warehouse_table", "focus", "warehouse_focus"]


def test_a_failed_warehouse_does_not_keep_the_charges_from_being_derived(focus: Project) -> None:
    focus.database = {"duckdb": {"warehouse_path": str(focus.folder)}}  # a folder is no database
    focus.deliver("1")
    run = focus.materialize()
    assert not run.success
    assert run.outcomes()["focus"] == "derived"


def test_an_export_without_a_mapping_has_no_stage_of_charges(project: Project) -> None:
    project.deliver("1")
    assert "focus" not in project.load().outcomes()


def test_a_month_whose_bill_is_not_loaded_says_what_to_do(focus: Project) -> None:
    run = focus.materialize(stages=["focus"])
    assert run.error == (
        f"{focus.parquet_path().relative_to(focus.folder)} is missing or damaged; run finops state "
        "reprocess acme 2024-01 to read the vendor's files again"
    )


FULL_RUN = ("aws", "run-pipeline", "--start-date", "2024-01", "--end-date", "2024-01")


@pytest.fixture
def finops(focus: Project) -> Finops:
    """Return the command in a project with a small mapping and a warehouse."""
    warehouse = '[database.duckdb]\nwarehouse_path = "data/warehouse.duckdb"\n'
    return Finops(focus, warehouse)


def test_the_line_of_a_month_names_the_failed_charges_and_the_loaded_bill(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping(moved=""))
    finops.project.deliver(taxed("1", tax="0.5"))
    line, *_ = finops(*FULL_RUN, code=1).splitlines()
    assert line.startswith("acme 2024-01  failed: focus: the charges of the kind 'tax' differ")
    assert line.endswith("; the bill is loaded: v1  2 rows  1.50")
    (row,) = finops.json("state", "list")
    assert (row["warehouse_table"], row["focus"], row["last_run"]) == ("v1", None, "failure")
    assert "focus: nothing" in finops("state", "list")
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    assert stages["warehouse_table"]["outcome"] == "loaded"
    assert stages["warehouse_table"]["error"] is None
    assert "differ from the bill" in stages["focus"]["error"]
    assert stages["focus"]["checks"] == "failed: adds_up"


@pytest.mark.thorough
def test_charges_are_derived_alone_without_the_vendor(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    finops.project.deliver("1")
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping(moved=""))
    finops.project.deliver(taxed("1", tax="0.5"))
    finops(*FULL_RUN, code=1)
    shutil.rmtree(finops.project.source)
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    assert finops("aws", "derive-focus").startswith("acme 2024-01  derived  v1  1 row  1.00")
    assert finops("aws", "load-focus-remote").startswith("acme 2024-01  loaded  v1  1 row  1.00")
    (row,) = finops.json("state", "list")
    assert (row["focus"], row["warehouse_focus"], row["last_run"]) == ("v1", "v1", "success")
    assert finops("aws", "derive-focus").startswith("acme 2024-01  unchanged  v1")


@pytest.mark.thorough
def test_a_failed_warehouse_and_failed_charges_are_both_named(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finops.project.folder / "data/warehouse.duckdb").mkdir(parents=True)  # no database
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping(moved=""))
    finops.project.deliver(taxed("1", tax="0.5"))
    line, *_ = finops(*FULL_RUN, code=1).splitlines()
    assert line.startswith("acme 2024-01  failed: warehouse_table: ")
    assert "; focus: the charges of the kind 'tax' differ" in line
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    assert "warehouse.duckdb" in stages["warehouse_table"]["error"]
    assert "differ from the bill" in stages["focus"]["error"]
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    finops("aws", "derive-focus")
    assert finops.json("state", "list")[0]["last_run"] == "failure"  # the warehouse's


@pytest.mark.thorough
def test_the_state_says_that_charges_are_of_an_older_mapping(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    finops.project.deliver("1")
    finops(*FULL_RUN)
    newer = small_mapping("newer")
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), newer)
    (row,) = finops.json("state", "list")
    assert row["focus"] == f"v1 (the mapping is now {newer.version})"
    assert f"focus: v1 (the mapping is now {newer.version})" in finops("state", "show", "acme")
    assert row["warehouse_focus"] == row["focus"]


@pytest.mark.thorough
def test_verify_names_what_differs_in_the_charges_and_repairs_it(
    finops: Finops, monkeypatch: pytest.MonkeyPatch
) -> None:
    finops.project.deliver("1", "2")
    finops(*FULL_RUN)
    assert "all agree" in (output := finops("state", "verify"))
    assert "rows and costs of charges" in output
    path = finops.project.focus_path()
    shown, newer = str(path.relative_to(finops.project.folder)), small_mapping("newer")

    def difference() -> str:
        row, *_ = finops.json("state", "verify")
        finops("state", "verify", "--repair")
        assert "all agree" in finops("state", "verify")
        return str(row["what_differs"])

    path.unlink()
    assert difference() == f"{shown} has no complete month of charges"
    record = ChargesRecord.from_file(FolderFile(path))
    assert record is not None
    other = FolderFile(path.with_name("other.parquet"))
    query = Sql(f"FROM read_parquet('{path}') LIMIT 1")
    footer = record.footer_texts("acme")
    with duckdb.connect() as connection, replacing_lake_file(connection, query, other, footer):
        pass
    other.path.replace(path)
    assert difference() == f"{shown} does not have the costs of its footer"
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), newer)
    assert difference() == (
        f"{shown} has v1 by the mapping {record.mapping}, but the mapping is now {newer.version}"
    )
    finops.project.deliver("5", version="v2")
    finops("aws", "extract-billing", "--start-date", "2024-01", "--end-date", "2024-01")
    for command in ("load-billing-local", "export-parquet", "load-billing-remote"):
        finops("aws", command)
    assert (
        difference()
        == f"{shown} has v1 by the mapping {newer.version}, but the bill of acme has version v2"
    )


@pytest.mark.thorough
def test_deep_verification_finds_a_changed_cell_of_the_charges(finops: Finops) -> None:
    finops.project.deliver("1", "2")
    finops(*FULL_RUN)
    assert "all agree" in finops("state", "verify", "--deep")
    path = finops.project.focus_path()
    record = ChargesRecord.from_file(FolderFile(path))
    assert record is not None
    query = Sql(f"SELECT * REPLACE ('999' AS BillingAccountId) FROM {parquet_relation(path)}")
    other, footer = FolderFile(path.with_name("other.parquet")), record.footer_texts("acme")
    with duckdb.connect() as connection, replacing_lake_file(connection, query, other, footer):
        pass
    other.path.replace(path)
    assert "all agree" in finops("state", "verify")
    (row,) = finops.json("state", "verify", "--deep")
    assert row["what_differs"].endswith(
        "acme-2024-01.parquet differs in BillingAccountId from the charges of its bill"
    )
    finops("state", "verify", "--deep", "--repair")
    assert "all agree" in finops("state", "verify", "--deep")


@pytest.mark.thorough
def test_verify_says_that_it_compares_rows_and_costs_of_charges_in_the_warehouse(
    finops: Finops,
) -> None:
    finops.project.deliver("1", "2")
    finops(*FULL_RUN)
    plain, *_ = finops.run("state", "verify").stderr.splitlines()
    assert plain.endswith(
        ": event log, ledger, footers of Parquet files, rows and cost of DuckDB tables, and of "
        "duckdb, rows and costs of charges, and of charges in duckdb"
    )
    with duckdb.connect(str(finops.project.folder / "data/warehouse.duckdb")) as warehouse:
        warehouse.execute("UPDATE aws_billing_data_focus SET BillingAccountId = '999'")
    deep = finops.run("state", "verify", "--deep")
    assert deep.stdout == "all agree\n"
    assert deep.stderr.splitlines()[0].endswith(
        ", every column of Parquet files and DuckDB tables, and of duckdb, every column of "
        "charges, rows and costs of charges in duckdb"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("memory", ["4MB", "6MB"])
def test_too_little_memory_is_no_difference_of_the_charges(
    project: Project, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPPINGS, ("aws", "cur1"), small_mapping())
    line_items = (line_item("2024-01", identity__LineItemId=str(n) * 1000) for n in range(500))
    project.deliver([*line_items])
    Finops(project)("aws", "run-pipeline")
    little = Finops(project, f'[database.duckdb]\nthreads = 1\nmemory_limit = "{memory}"\n')
    (line,) = little("state", "verify", "--deep", code=1).splitlines()
    assert line.startswith("DuckDB needs more memory for this than database.duckdb.memory_limit;")


@pytest.mark.thorough
def test_cleanup_deletes_unfinished_files_of_charges(finops: Finops) -> None:
    finops.project.deliver("1")
    finops(*FULL_RUN)
    part = finops.project.focus_path().with_suffix(".parquet.part")
    part.write_text("cut short")
    assert part.name in finops("state", "cleanup", "--stale")
    assert not part.exists()


@pytest.mark.thorough
def test_query_has_the_charges_of_all_exports(project: Project, focus: Project) -> None:
    second = SETTINGS.replace('"acme"', '"beta"').replace("aws_billing_data", "beta")
    finops = Finops(project, second)
    headers = (*HEADERS, "resourceTags/user:team")
    focus.deliver([line_item("2024-01", **{"resourceTags__user:team": "red"})], headers=headers)
    focus.deliver("2", month="2024-02")
    finops("aws", "run-pipeline", "--start-date", "2024-01", "--end-date", "2024-02")
    sql = "SELECT x_export, x_billing_month, BilledCost, "
    sql += "Tags['service'] s, COLUMNS('.*team') FROM focus"
    rows = finops.json("query", f"{sql} ORDER BY ALL")
    assert [(row["x_export"], row["x_billing_month"], row["BilledCost"]) for row in rows] == [
        (export, f"2024-0{month}-01", str(month)) for export in ("acme", "beta") for month in (1, 2)
    ]
    assert rows[0]["s"] == "AmazonEC2"
    assert [row[name] for row in rows for name in row if name.endswith("team")] == [
        "red",
        None,
        "red",
        None,
    ]


@pytest.mark.thorough
def test_query_has_columns_of_other_types_in_two_exports_as_text(
    project: Project, focus: Project
) -> None:
    second = SETTINGS.replace('"acme"', '"beta"').replace("aws_billing_data", "beta")
    second = second.replace("acme-cur", "beta-cur")
    finops = Finops(project, second)
    headers, cells = (*HEADERS, "product/x"), {"product__x": "1"}
    for name, kind in {"acme-cur": "BigDecimal", "beta-cur": "String"}.items():
        row = line_item("2024-01", **cells)
        types = {"product/x": kind}
        focus.deliver([row], headers=headers, types=types, export_name=name)
    finops(*FULL_RUN)
    sql = "SELECT COLUMNS('x_product_.*') AS x FROM focus"
    assert [row["x"] for row in finops.json("query", sql)] == ["1.000000000000000000", "1"]


def test_a_command_for_exports_without_a_mapping_says_so(project: Project) -> None:
    output = Finops(project)("aws", "derive-focus", code=1)
    assert output.startswith(
        "charges are not derived from acme; choose another export by --export ("
    )


@pytest.mark.thorough
def test_state_is_moved_with_its_charges(finops: Finops) -> None:
    finops.project.deliver("1")
    # The import starts a process, which would not know the small mapping of this one.
    finops.run_process(*FULL_RUN)
    finops("state", "export", "state.json")
    shutil.rmtree(finops.project.folder / ".dagster")
    assert finops("state", "import", "state.json") == "months imported: 1\n"
    stages = {row["stage"]: row for row in finops.json("state", "show", "acme", "2024-01")}
    assert stages["focus"]["version"] == "v1"
