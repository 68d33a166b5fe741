"""The settings file: its keys and defaults, and one line for every mistake."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from pytest import MonkeyPatch

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.export import Export
from finops_dagster.settings import Settings, load_settings
from finops_dagster.settings_table import LocalPath, SettingsError
from finops_dagster.sources import VENDORS
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.warehouses import open_warehouse
from finops_dagster.warehouses.bigquery.settings import BigQuerySettings
from finops_dagster.warehouses.snowflake.settings import SnowflakeSettings
from finops_dagster_tests.project import ROOT

EXAMPLES = sorted(ROOT.glob("config/*.toml"))
EXPORT = """
[[exports]]
name = "acme"
vendor = "aws"
format = "cur1"
source = "s3://bucket/some/prefix"
export_name = "acme-cur"
start_month = "2024-01"
"""

SIZE = "\n[[run_sizes]]\ntags.a = 'b'\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "finops.toml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load_settings(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(file, text)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def test_the_documented_keys_are_read_and_others_have_defaults(file: Path) -> None:
    text = """
        [storage]
        staging_dir = "staging"
        [database]
        backend = "bigquery"
        duckdb.database_path = "data/{export}-{month}.duckdb"
        bigquery = {project_id = "acme", api_endpoint = "http://127.0.0.1:9050"}
        """
    export = EXPORT.replace('"acme"', '"acme-eu-1"').replace('format = "cur1"', "")
    role = "endpoint_url = 'http://127.0.0.1:5000'\nrole_arn = 'arn:aws:iam::123456789012:role/x'"
    settings = load(file, text + export + role)
    assert settings.database.warehouse == BigQuerySettings(
        project_id="acme", dataset="finops", location="US", api_endpoint="http://127.0.0.1:9050"
    )
    assert settings.storage.staging_dir == Path("staging")
    assert settings.storage.parquet_dir == Path("data/parquet")
    (export,) = settings.exports
    assert isinstance(export, AwsExport)
    assert (export.format, export.sensor, export.table_name) == (None, False, "acme_eu_1")
    assert load(file, "").database.duckdb.database_path == "data/finops.duckdb"


DUCKDB, BIGQUERY = "[database.duckdb]\n", "[database.bigquery]\n"
SQL = "[database.sql]\ndestination = 'mssql'\n"
BELONG = "docs/security.md says where secrets belong"
GIVE_IT = " holds a secret; give it in the environment, as DESTINATION__MSSQL__CREDENTIALS"
WAREHOUSE = f"{DUCKDB}warehouse_path = "
IS_NO = "database.duckdb: warehouse_path is database_path"
IS_ONE = "database.duckdb: warehouse_path is one file for all exports and months"
SNOWFLAKE = "[database.snowflake]\naccount = 'a'\nuser = 'u'\nwarehouse = 'w'\ndatabase = 'd'\n"
SNOWFLAKE_PAGE = SNOWFLAKE.replace("'a'", "'https://app.snowflake.com/acme/finops'")
OTHER = EXPORT.replace('"acme"', '"b"')
A_B = OTHER.replace('"b"', '"a-b"') + OTHER.replace('"b"', '"a_b"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[storage]\nfolder = 'x'", "storage.folder: unknown key; correct its name, or remove it"),
        ("surprise = 1", "surprise: unknown key"),
        ("[storage", "Expected ']'"),
        ("[aws]\nbucket = 'x'", "aws: unknown key; write each export as [[exports]] with vendor"),
        ("[project]\nstate_db = 'x'", "project.state_db: unknown key; remove it: state is kept"),
        ("[database]\nstate_db = 'x'", "database.state_db: unknown key; remove it: state is"),
        ("[state_manager]\nbase_path = 'x'", "state_manager: unknown key; remove it: Dagster"),
        (EXPORT + "tables = 'x'", "exports[0].tables: unknown key"),
        (EXPORT.replace('vendor = "aws"\n', ""), "exports[0].vendor: missing value; set it"),
        (EXPORT.replace('"aws"', '"acme"'), "exports[0].vendor: 'acme' is not one of aws"),
        (EXPORT.replace("2024-01", "2024-13"), "exports[0].start_month: '2024-13' is not a month"),
        (EXPORT.replace("s3://", "ftp://"), "exports[0].source: "),
        (
            EXPORT.replace('"acme"', '"a/b"'),
            "exports[0].name: must have letters, digits, - and _ only",
        ),
        (EXPORT + "end_month = '2023-12'", "exports[0]: end_month 2023-12 is before start_month"),
        (EXPORT + "end_month = 'soon'", "exports[0].end_month: 'soon' is not a month"),
        (EXPORT + EXPORT, "two exports have the name 'acme'; give each its own"),
        (A_B, "two exports have the name"),
        (EXPORT + "table = 't'" + OTHER + "table = 'T'", "two exports have the table 't'"),
        (EXPORT.replace('"acme"', '"Focus"'), "exports[0]: name 'focus' is reserved; give"),
        (EXPORT + "table = 'Accounts'", "exports[0]: table 'accounts' is reserved; give"),
        (
            EXPORT + OTHER + "table = 'ACME_focus'",
            "exports[1].table is acme_focus, which is the table of the charges of exports[0].table "
            "acme; give one of them another name",
        ),
        (SIZE + "up_to = '1GB'", "run_sizes: the last run size must have no up_to: "),
        (SIZE + SIZE, "run_sizes: each run size but the last needs an up_to that is above "),
        (SIZE + "up_to = 'much'" + SIZE, "run_sizes[0].up_to: must be a size, such as 2GB"),
        (SIZE.replace("'b'", "7"), "run_sizes[0].tags: the tag a must be a text or a table"),
        ("database = 7", "database: must be a table"),
        ("[database]\nbackend = 'oracle'", "database.backend: 'oracle' is not one of duckdb, "),
        ("[database.oracle]\nhost = 'x'", "database.oracle: unknown key"),
        ("[database]\nbigquery = 'x'", "database.bigquery: must be a table"),
        ("[database]\nbackend = 'bigquery'", "database.bigquery.project_id: missing value"),
        (BIGQUERY + "project_id = 'x'\nplace = 'US'", "database.bigquery.place: unknown key"),
        (SQL + "working_dir = 's3://x'", "database.sql.working_dir: is a URL"),
        (DUCKDB + "memory_limit = 2", "database.duckdb.memory_limit: must be a text, in quotes"),
        (DUCKDB + "memory_limit = 'lots'", "database.duckdb.memory_limit: must be a number"),
        (DUCKDB + "database_path = '{day}'", "database.duckdb.database_path: has {day}"),
        (WAREHOUSE + "'data/../data/finops.duckdb'", IS_NO + "; give the warehouse another file"),
        (WAREHOUSE + "'a.duckdb'\ndatabase_path = '{export}.duckdb'", IS_NO),
        (WAREHOUSE + "'{month}.duckdb'", IS_ONE),
        (SNOWFLAKE_PAGE, "database.snowflake.account: is no account's identifier, such as "),
        (SNOWFLAKE + "password = 'hunter2'", "database.snowflake.password: unknown key; " + BELONG),
        (SQL + "credentials.password = 'hunter2'", "database.sql: credentials.password" + GIVE_IT),
        (SQL + "credentials = 'mysql://finops:hunter2@db'", "database.sql: credentials" + GIVE_IT),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(file: Path, text: str, message: str) -> None:
    assert refusal(file, text).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    "key",
    [
        "storage.staging_dir",
        *("database.duckdb.database_path", "database.duckdb.warehouse_path"),
    ],
)
def test_a_url_is_refused_where_a_local_path_is_needed(
    file: Path, monkeypatch: MonkeyPatch, key: str
) -> None:
    table, _, name = key.rpartition(".")
    message = f"{key}: is a URL; it must be a path on this machine"
    variable = f"FINOPS_{key.replace('.', '__').upper()}"
    for url in ("s3://acme/x", "s3:/acme", "GS://a/{month}", "file:///data", "md:acme", "https:"):
        monkeypatch.delenv(variable, raising=False)
        assert refusal(file, f"[{table}]\n{name} = '{url}'") == f"{file}: {message}"
        monkeypatch.setenv(variable, url)
        assert refusal(file, "") == f"environment variable {variable}: {message}"


def test_the_lake_may_be_in_a_store_but_in_no_other_url(file: Path) -> None:
    for url in ("s3://acme/lake", "https://acme.blob.core.windows.net/lake/finops"):
        assert load(file, f"{EXPORT}[storage]\nparquet_dir = '{url}'").storage.parquet_dir == url
    for url in ("s3:/acme", "file:///data", "md:acme", "https:"):
        message = f"{file}: storage.parquet_dir: is a URL; it must be a path on this machine or the"
        assert refusal(file, f"[storage]\nparquet_dir = '{url}'").startswith(message)
    assert "storage.parquet_dir: 'ftp://a/b' is not the address of a store" in refusal(
        file, "[storage]\nparquet_dir = 'ftp://a/b'"
    )
    in_folder = "[storage.lake]\nregion = 'eu-west-1'"
    assert "is for a lake in S3, but parquet_dir is a folder" in refusal(file, in_folder)


@pytest.mark.parametrize("path", ["C:\\lake", "C:/lake", "a:b/c", "./s3:/x", "/data/lake"])
def test_a_path_with_a_colon_is_a_path(file: Path, path: str) -> None:
    settings = load(file, f"{EXPORT}[storage]\nparquet_dir = '{path}'")
    assert settings.storage.parquet_dir == Path(path)


def test_the_settings_file_is_found_by_option_variable_or_default(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for hint in ("config/finops.toml", "config.toml", "FINOPS_CONFIG", "--config", "init"):
        assert hint in str(caught.value)
    with pytest.raises(
        SettingsError, match=r"x\.toml: the settings file does not exist; --config names it"
    ):
        load_settings(Path("x.toml"))
    for path in ("config.toml", "config/finops.toml", "mine.toml"):
        if path == "mine.toml":
            monkeypatch.setenv("FINOPS_CONFIG", path)
            with pytest.raises(
                SettingsError, match=r"the settings file does not exist; FINOPS_CONFIG names"
            ):
                load_settings()
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(f"[project]\nname = '{path}'")
        assert load_settings().project.name == path


def test_a_vendor_has_its_own_keys(file: Path, monkeypatch: MonkeyPatch) -> None:
    class OtherExport(ExportSettings):
        vendor: Literal["other"]
        folder: LocalPath

    monkeypatch.setitem(VENDORS, "other", replace(VENDORS["aws"], settings=OtherExport))
    other = "[[exports]]\nname = 'b'\nvendor = 'other'\nstart_month = '2024-01'\n"
    settings = load(file, EXPORT + other + "folder = 'data'")
    assert [type(export) for export in settings.exports] == [AwsExport, OtherExport]
    assert settings.model_dump()["exports"][1]["folder"] == Path("data")
    wrong = other + "folder = 's3://data'\nregion = 'x'" + EXPORT + "folder = 'data'"
    assert refusal(file, wrong) == (
        f"{file}: exports[0].folder: is a URL; it must be a path on this machine; "
        f"{file}: exports[0].region: unknown key; correct its name, or remove it; "
        f"{file}: exports[1].folder: unknown key; correct its name, or remove it"
    )


ACTUAL = """
[[exports]]
name = "actual"
vendor = "azure"
format = "actual"
source = "abfss://costs@contoso.dfs.core.windows.net/exports"
start_month = "2024-01"
"""
AMORTIZED = ACTUAL.replace('"actual"', '"amortized"')
FROM = "amortized_from = 'amortized'"


def test_the_charges_of_an_export_are_derived_from_its_bill(file: Path) -> None:
    """Actual and amortized costs of Azure are two bills of the same charges."""
    focus = ACTUAL.replace('"actual"', '"focus-costs"', 1).replace('"actual"', '"focus"')
    exports = load(file, EXPORT + ACTUAL + FROM + AMORTIZED + focus).exports
    assert [export.bill_exports_by_dataset for export in exports] == [
        {"": "acme"},
        {"actual": "actual", "amortized": "amortized"},
        None,
        {"": "focus-costs"},
    ]
    assert not any(export.lacks_charges(exports) for export in exports)


def test_actual_and_amortized_costs_alone_have_no_focus(file: Path) -> None:
    exports = load(file, ACTUAL + AMORTIZED).exports
    assert [export.bill_exports_by_dataset for export in exports] == [None, None]
    assert all(export.lacks_charges(exports) for export in exports)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AMORTIZED + FROM, "exports[0]: amortized_from belongs to actual costs, not to amortized"),
        (ACTUAL + FROM, "amortized_from = 'amortized' of 'actual' is not the name of an Azure"),
        (ACTUAL + "amortized_from = 'actual'", "amortized_from = 'actual' of 'actual' is not"),
        (ACTUAL + "amortized_from = 'acme'" + EXPORT, "amortized_from = 'acme' of 'actual' is not"),
        (
            ACTUAL + FROM + ACTUAL.replace('"actual"', '"b"', 1) + FROM + AMORTIZED,
            "amortized_from = 'amortized' of 'actual' is also named by 'b'; remove one of the two",
        ),
    ],
)
def test_amortized_costs_are_those_of_one_export(file: Path, text: str, message: str) -> None:
    assert refusal(file, text).startswith(f"{file}: {message}")


def test_an_export_ends_with_its_end_month(file: Path) -> None:
    text = EXPORT + "end_month = '2024-03'" + OTHER + "end_month = '9999-12'"
    closed, endless = load(file, text).exports
    months = ["2024-01", "2024-02", "2024-03"]
    assert [str(month) for month in closed.months()] == months
    assert Export(closed).partitions.get_partition_keys() == months
    assert endless.months()[-1] == BillingMonth.current()
    assert Export(endless).partitions.get_last_partition_key() == str(BillingMonth.current())


@pytest.mark.parametrize(
    "account",
    [
        *("acme-finops", "acme-finops.snowflakecomputing.com"),
        "https://acme-finops.SnowflakeComputing.com/console",
    ],
)
def test_a_snowflake_account_is_its_identifier_or_its_address(account: str) -> None:
    settings = SnowflakeSettings(account=account, user="u", warehouse="w", database="d")
    assert settings.account == "acme-finops"


def test_environment_variables_replace_values_of_the_file(
    file: Path, monkeypatch: MonkeyPatch
) -> None:
    file.write_text(EXPORT + BIGQUERY + "project_id = 'file'\ndataset = 'file'\nlocation = 'file'")
    monkeypatch.setenv("FINOPS_DATABASE__DUCKDB__MEMORY_LIMIT", "1GB")
    monkeypatch.setenv("FINOPS_DATABASE__BIGQUERY__DATASET", "variable")
    monkeypatch.setenv("FINOPS_DATABASE__BIGQUERY__LOCATION", "variable")
    monkeypatch.setenv("OPEN_FINOPS_DATABASE_BACKEND", "bigquery")
    database = load_settings(file, database_config={"location": "command line"}).database
    assert database.duckdb.memory_limit == "1GB"
    assert database.warehouse == BigQuerySettings(
        project_id="file", dataset="variable", location="command line"
    )
    assert load_settings(file, backend="duckdb").database.backend == "duckdb"
    exports = '[{"name": "x", "vendor": "aws", "source": "file://x", "export_name": "x", '
    monkeypatch.setenv("FINOPS_EXPORTS", f'{exports}"start_month": "2024-01"}}]')
    assert [export.name for export in load_settings(file).exports] == ["x"]


@pytest.mark.parametrize(
    "variable",
    [
        *("FINOPS_DATABASE", "FINOPS_DATABASE__BACKEND", "FINOPS_DATABASE__DUCKDB"),
        *("FINOPS_DATABSE__BACKEND", "FINOPS_EXPORTS", "FINOPS_EXPORTS__0__TABLE", "DAGSTER_HOME"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    file: Path, monkeypatch: MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "s3://oracle")
    assert refusal(file, EXPORT).startswith(f"environment variable {variable}: ")


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
