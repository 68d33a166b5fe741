"""Every mistake in the settings is one line that names file and key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import load_settings
from finops_dagster.settings_table import LocalPath, SettingsError
from finops_dagster.sources import VENDORS
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.warehouses import open_warehouse

EXAMPLES = sorted(Path(__file__).parents[1].glob("config/*.toml"))
EXPORT = """
[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "s3://bucket/some/prefix"
export_name = "acme-cur"
start_month = "2024-01"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "finops.toml"


def test_the_documented_shape_is_read(file: Path) -> None:
    file.write_text(
        """
        [storage]
        staging_dir = "data/staging"
        parquet_dir = "data/parquet"
        [database]
        backend = "bigquery"
        [database.duckdb]
        database_path = "data/{export}-{month}.duckdb"
        memory_limit = "2GB"
        [database.bigquery]
        project_id = "acme"
        dataset = "finops"
        location = "US"
        api_endpoint = "http://127.0.0.1:9050"
        [[exports]]
        name = "acme"
        vendor = "aws"
        format = "cur1"
        source = "s3://bucket/some/prefix"
        export_name = "acme-cur"
        start_month = "2024-01"
        table = "aws_billing_data"
        region = "us-east-1"
        endpoint_url = "http://127.0.0.1:5000"
        profile = "billing"
        role_arn = "arn:aws:iam::123456789012:role/finops"
        """
    )
    settings = load_settings(file)
    assert settings.database.warehouse.project_id == "acme"
    assert settings.exports[0].role_arn == "arn:aws:iam::123456789012:role/finops"
    assert settings.exports[0].sensor is False


def test_everything_but_the_exports_has_a_default(file: Path) -> None:
    file.write_text(EXPORT)
    settings = load_settings(file)
    assert settings.storage.staging_dir == Path("data/staging")
    assert settings.database.backend == "duckdb"
    assert settings.database.duckdb.database_path == "data/finops.duckdb"


def test_the_table_is_named_after_the_export(file: Path) -> None:
    file.write_text(EXPORT.replace('"acme"', '"acme-eu-1"'))
    assert load_settings(file).exports[0].table_name == "acme_eu_1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[storage]\nfolder = 'x'", "storage.folder: unknown key"),
        ("surprise = 1", "surprise: unknown key"),
        (EXPORT + "tables = 'x'", "exports[0].tables: unknown key"),
        (EXPORT.replace('vendor = "aws"\n', ""), "exports[0].vendor: missing value"),
        (EXPORT.replace('"aws"', '"acme"'), "exports[0].vendor: 'acme' is none of aws"),
        (EXPORT.replace("2024-01", "2024-13"), "exports[0].start_month: '2024-13' is not a month"),
        (EXPORT.replace("s3://", "ftp://"), "exports[0].source: "),
        (EXPORT.replace('"acme"', '"a/b"'), "exports[0].name: "),
        (EXPORT + "end_month = '2023-12'", "exports[0]: end_month 2023-12 is before start_month"),
        (EXPORT + "end_month = 'soon'", "exports[0].end_month: 'soon' is not a month"),
        (EXPORT + EXPORT, ": two exports have the name 'acme'; each needs one of its own"),
        (
            EXPORT.replace('"acme"', '"a-b"') + EXPORT.replace('"acme"', '"a_b"'),
            ": two exports have the name 'a_b'",
        ),
        (
            EXPORT + "table = 't'" + EXPORT.replace('"acme"', '"b"') + "table = 'T'",
            ": two exports have the table 't'",
        ),
        ("[database]\nbackend = 'oracle'", "database.backend: 'oracle' is none of duckdb, "),
        ("[database.oracle]\nhost = 'x'", "database.oracle: unknown key"),
        ("[database]\nbigquery = 'x'", "database.bigquery: must be a table"),
        ("[database.duckdb]\nmemory_limit = 2", "database.duckdb.memory_limit: "),
        ("[database.duckdb]\nmemory_limit = 'lots'", "database.duckdb.memory_limit: "),
        (
            "[database.duckdb]\ndatabase_path = '{day}'",
            "database.duckdb.database_path: holds {day}",
        ),
        (
            "[database.duckdb]\nwarehouse_path = 'data/../data/finops.duckdb'",
            "database.duckdb: warehouse_path is database_path; give the warehouse another file",
        ),
        (
            "[database.duckdb]\ndatabase_path = '{export}.duckdb'\nwarehouse_path = 'a.duckdb'",
            "database.duckdb: warehouse_path is database_path",
        ),
        (
            "[database.duckdb]\nwarehouse_path = '{month}.duckdb'",
            "database.duckdb: warehouse_path is one file for all exports and months",
        ),
        ("[storage", "Expected ']'"),
        ("database = 7", "database: must be a table"),
        (
            "[database.snowflake]\npassword = 'hunter2'",
            "database.snowflake.password: unknown key; docs/security.md says where secrets belong",
        ),
        (
            "[database.sql]\ndestination = 'mssql'\ncredentials = {password = 'hunter2'}",
            "database.sql: credentials.password holds a secret; give it in the environment, as "
            "DESTINATION__MSSQL__CREDENTIALS__PASSWORD",
        ),
        (
            "[database.sql]\ndestination = 'x'\ncredentials = 'mysql://finops:hunter2@db/acme'",
            "database.sql: credentials holds a secret; give it in the environment, as "
            "DESTINATION__X__CREDENTIALS",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", ": database.bigquery.project_id: missing value"),
        (
            "[database.bigquery]\nproject_id = 'x'\nplace = 'US'",
            ": database.bigquery.place: unknown key",
        ),
    ],
)
def test_a_mistake_in_the_table_of_the_chosen_warehouse_is_one_line(
    file: Path, table: str, said: str
) -> None:
    file.write_text(f"[database]\nbackend = 'bigquery'\n{table}")
    with pytest.raises(SettingsError) as caught:
        open_warehouse(load_settings(file).database)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[aws]\nbucket = 'x'", "aws: unknown key; write each export as [[exports]] with vendor"),
        ("[project]\nstate_db = 'x'", "project.state_db: unknown key; leave it out: state is kept"),
        ("[database]\nstate_db = 'x'", "database.state_db: unknown key; leave it out: state is"),
        ("[state_manager]\nbase_path = 'x'", "state_manager: unknown key; leave it out: runs and"),
    ],
)
def test_a_key_that_belongs_to_an_earlier_layout_says_what_to_write_instead(
    file: Path, text: str, said: str
) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        *("storage.staging_dir", "storage.parquet_dir"),
        *("database.duckdb.database_path", "database.duckdb.warehouse_path"),
    ],
)
@pytest.mark.parametrize(
    "url", ["s3://acme/lake", "s3:/acme", "GS://acme/{month}", "file:///data", "md:acme", "https:"]
)
def test_a_url_is_no_path_of_this_machine(
    file: Path, monkeypatch: pytest.MonkeyPatch, key: str, url: str
) -> None:
    table, _, name = key.rpartition(".")
    file.write_text(f"{EXPORT}[{table}]\n{name} = '{url}'")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(caught.value) == f"{file}: {key}: is a URL; it must be a path on this machine"
    file.write_text(EXPORT)
    variable = f"FINOPS_{key.replace('.', '__').upper()}"
    monkeypatch.setenv(variable, url)
    with pytest.raises(SettingsError, match=f"environment variable {variable}: .*is a URL"):
        load_settings(file)


def test_other_folders_are_on_this_machine_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "s3://acme/history")
    file.write_text(EXPORT)
    with pytest.raises(SettingsError, match="environment variable DAGSTER_HOME: is a URL"):
        load_settings(file)
    monkeypatch.delenv("DAGSTER_HOME")
    file.write_text(
        "[database]\nbackend = 'sql'\n[database.sql]\ndestination = 'duckdb'\n"
        "working_dir = 's3://acme/dlt'"
    )
    with pytest.raises(SettingsError, match=r"working_dir: is a URL|is not installed"):
        open_warehouse(load_settings(file).database)


@pytest.mark.parametrize("path", ["C:\\\\lake", "C:/lake", "a:b/c", "./s3:/x", "/data/lake"])
def test_a_path_with_a_colon_is_a_path(file: Path, path: str) -> None:
    file.write_text(f'{EXPORT}[storage]\nparquet_dir = "{path}"')
    assert load_settings(file).storage.parquet_dir == Path(path.replace("\\\\", "\\"))


def test_a_missing_file_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SettingsError, match=r"finops\.toml: there is no such .*; --config names it"
    ):
        load_settings(file)
    monkeypatch.setenv("FINOPS_CONFIG", str(file))
    with pytest.raises(
        SettingsError, match=r"finops\.toml: there is no such .*; FINOPS_CONFIG names"
    ):
        load_settings()
    monkeypatch.delenv("FINOPS_CONFIG")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for way_out in (
        "config/finops.toml",
        "config.toml",
        "FINOPS_CONFIG",
        "--config",
        "finops init",
    ):
        assert way_out in str(caught.value)


def test_config_toml_is_read_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINOPS_CONFIG", raising=False)
    places = ["config.toml", "config/finops.toml", "mine.toml"]
    for name, place in enumerate(places):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text(f"[project]\nname = '{name}'")
        if place == "mine.toml":
            monkeypatch.setenv("FINOPS_CONFIG", place)
        assert load_settings().project.name == str(name)


def test_a_vendor_has_keys_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherExport(ExportSettings):
        vendor: Literal["other"]
        folder: LocalPath

    monkeypatch.setitem(VENDORS, "other", replace(VENDORS["aws"], settings=OtherExport))
    other = "[[exports]]\nname = 'b'\nvendor = 'other'\nstart_month = '2024-01'\n"
    file.write_text(EXPORT + other + "folder = 'data'")
    exports = load_settings(file).exports
    assert [type(export) for export in exports] == [AwsExport, OtherExport]
    assert load_settings(file).model_dump()["exports"][1]["folder"] == Path("data")
    file.write_text(other + "folder = 's3://data'\nregion = 'x'" + EXPORT + "folder = 'data'")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(caught.value) == (
        f"{file}: exports[0].folder: is a URL; it must be a path on this machine; "
        f"{file}: exports[0].region: unknown key; {file}: exports[1].folder: unknown key"
    )


def test_an_export_ends_with_its_last_month(file: Path) -> None:
    file.write_text(EXPORT + "end_month = '2024-03'")
    (export,) = load_settings(file).exports
    assert [str(month) for month in export.months()] == ["2024-01", "2024-02", "2024-03"]
    assert Export(export).partitions.get_partition_keys() == ["2024-01", "2024-02", "2024-03"]
    file.write_text(EXPORT + "end_month = '9999-12'")
    (export,) = load_settings(file).exports
    assert export.months()[-1] == BillingMonth.current()
    assert Export(export).partitions.get_last_partition_key() == str(BillingMonth.current())


@pytest.mark.parametrize(
    "account",
    [
        "acme-finops",
        "acme-finops.snowflakecomputing.com",
        "https://acme-finops.SnowflakeComputing.com/console",
    ],
)
def test_a_snowflake_account_is_its_identifier_or_its_address(file: Path, account: str) -> None:
    file.write_text(
        f"[database]\nbackend = 'snowflake'\n[database.snowflake]\naccount = '{account}'\n"
        "user = 'u'\nwarehouse = 'w'\ndatabase = 'd'"
    )
    assert load_settings(file).database.warehouse.account == "acme-finops"


def test_the_environment_names_the_file_and_wins_over_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(EXPORT + "[database.duckdb]\nmemory_limit = '2GB'")
    monkeypatch.setenv("FINOPS_CONFIG", str(file))
    monkeypatch.setenv("FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT", "1GB")
    assert load_settings().database.duckdb.memory_limit == "1GB"


@pytest.mark.parametrize(
    "variable",
    [
        "FINOPS_DATABASE",
        "FINOPS_DATABASE__BACKEND",
        "FINOPS_DATABASE__DUCKDB",
        "FINOPS_DATABSE__BACKEND",
        "FINOPS_EXPORTS",
    ],
)
def test_a_mistake_in_the_environment_is_told_as_such(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    file.write_text(EXPORT)
    monkeypatch.setenv(variable, "oracle")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert str(caught.value).startswith(f"environment variable {variable}: ")


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_the_example_files_are_valid(example: Path) -> None:
    settings = load_settings(example)
    assert settings.exports
    if settings.database.has_warehouse:
        try:
            open_warehouse(settings.database)
        except SettingsError as error:
            if "is not installed" in str(error):
                pytest.skip(str(error))
            raise
