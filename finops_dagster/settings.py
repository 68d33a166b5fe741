"""The settings of the project, from a TOML file and the environment."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as EnvironmentUnreadable

from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.errors import excerpt, first_line
from finops_dagster.lake import Lake, LakeAddress, LakeSettings, open_lake
from finops_dagster.lake.catalog_settings import CHARGES_TABLE, CatalogSettings
from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.budgets import Budgets
from finops_dagster.run_sizes import RunSize, check_run_sizes
from finops_dagster.settings_table import (
    URL,
    LocalPath,
    SettingsError,
    SettingsTable,
    problems_line,
)
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.warehouses import WAREHOUSES
from finops_dagster.warehouses.duckdb.settings import DuckDBSettings

if TYPE_CHECKING:
    from finops_dagster.lake.catalog import IcebergCatalog
    from finops_dagster.reports.builder import ReportBuilder

# The first that exists is read; they are relative to the working directory.
DEFAULT_CONFIGS = (Path("config/finops.toml"), Path("config.toml"))
# What the settings file has several of, each a block.
_BLOCKS = {"EXPORTS": "an export", "BUDGETS": "a budget", "RUN_SIZES": "a run size"}
# The key of values from the command line for the chosen backend's table. It is not a text, so that
# no TOML file can have it.
_OVERRIDES = None


def _checked_name(choices: Mapping[str, object], name: str) -> str:
    """Return the name. Raises ValueError unless it is a key of `choices`."""
    if name not in choices:
        raise ValueError(f"{excerpt(name)} is not one of {', '.join(choices)}; choose one")
    return name


class ProjectSettings(SettingsTable):
    """The settings of the project: its name is the title of the report."""

    name: str = "Billing months"


class StorageSettings(SettingsTable):
    """The staging folder and the lake, relative to the working directory, and inflation limits.

    `parquet_dir` is a folder or the address of a store, which `lake` says how to reach.

    A compressed file may inflate to `max_inflation` times its size, and all files of a month
    together to `max_inflated_bytes`.
    """

    staging_dir: LocalPath = Path("data/staging")
    parquet_dir: LakeAddress = Path("data/parquet")
    lake: LakeSettings = LakeSettings()
    # Deflate's highest ratio is 1,032. CSV bills reach 10 to 30, the most repetitive about 100. The
    # largest bill on public record is 30 GB a month.
    max_inflation: PositiveInt = 300
    max_inflated_bytes: PositiveInt = 10**12

    def open_lake(self) -> Lake:
        """Return the lake in `parquet_dir`; nothing is read, and no connection is opened."""
        return open_lake(self.parquet_dir, self.lake, self.staging_dir / ".lake")

    @model_validator(mode="after")
    def _check_lake(self) -> Self:
        if isinstance(self.parquet_dir, Path) and any(self.lake.store_settings.values()):
            keys = ", ".join(key for key, value in self.lake.store_settings.items() if value)
            raise ValueError(
                f"lake: {keys} is for a lake in S3, but parquet_dir is a folder; remove it"
            )
        self.open_lake()
        return self


class MetricsSettings(SettingsTable):
    """The file that the sensor `metrics` writes; it has the newest `months` months of each export.

    Without a file, there is no such sensor.
    """

    file: LocalPath | None = None
    months: PositiveInt = 13

    @staticmethod
    def require_client() -> None:
        """Raise SettingsError if the client of Prometheus is not installed."""
        if find_spec("prometheus_client") is None:
            raise SettingsError(
                "prometheus_client, which writes metrics, is not installed; run pip install "
                "'.[metrics]' in the folder from which finops_dagster was installed"
            )


class UpkeepSettings(SettingsTable):
    """The schedule `state_upkeep`: whether it is on at first, and after how long it deletes.

    Backups are deleted after `backup_days`, and what no month needs after `cleanup_days`.
    `backup_dir` is a folder or the address of a store, which `storage.lake` says how to reach; by
    default the folder `backups` of the lake.
    """

    schedule: bool = False
    backup_dir: LakeAddress | None = None
    backup_days: PositiveInt = 7
    cleanup_days: PositiveInt = 30


class DatabaseSettings(SettingsTable):
    """The chosen backend, and a table of settings for each warehouse.

    With `duckdb` and no `warehouse_path` there is no warehouse: months end at Parquet.
    `_with_warehouses` adds the tables of the other warehouses.
    """

    backend: Annotated[str, AfterValidator(partial(_checked_name, WAREHOUSES))] = "duckdb"
    duckdb: DuckDBSettings = DuckDBSettings()

    @property
    def has_warehouse(self) -> bool:
        """Whether months are loaded into a warehouse after Parquet."""
        return self.backend != "duckdb" or self.duckdb.warehouse_path is not None

    @property
    def warehouse(self) -> SettingsTable:
        """The settings table of the chosen backend; that of `duckdb` if there is no warehouse."""
        table = getattr(self, self.backend)
        assert isinstance(table, SettingsTable)
        return table


def _with_warehouses(database: object) -> object:
    """Return the database settings with each warehouse's table, validated by its own class.

    The chosen warehouse has a table also where nothing is set in it.
    """
    if not isinstance(database, dict):
        return database
    tables = dict(database)
    overrides = tables.pop(_OVERRIDES, {})
    backend = tables.get("backend", "duckdb")
    if backend in list(WAREHOUSES):
        table = tables.setdefault(backend, {})
        tables[backend] = {**table, **overrides} if isinstance(table, dict) else table
    fields: dict[str, Any] = {
        name: (table | None, None) for name, table in WAREHOUSES.items() if name != "duckdb"
    }
    return create_model("Database", __base__=DatabaseSettings, **fields).model_validate(tables)


class _VendorKey(SettingsTable):
    model_config = ConfigDict(extra="ignore")

    vendor: Annotated[str, AfterValidator(partial(_checked_name, VENDORS))]


def _vendor_export(export: object) -> ExportSettings:
    """Return the settings of an export, validated by its vendor's class."""
    # A discriminated union would put the vendor's name into the key of every error.
    if isinstance(export, ExportSettings):
        return export
    return VENDORS[_VendorKey.model_validate(export).vendor].settings.model_validate(export)


class Settings(BaseSettings):
    """All settings. `load_settings` reads them from the file and the environment.

    Environment variables such as `FINOPS_DATABASE__BACKEND` override the file.
    """

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix="FINOPS_",
        env_nested_delimiter="__",
    )

    project: ProjectSettings = ProjectSettings()
    storage: StorageSettings = StorageSettings()
    database: Annotated[SerializeAsAny[DatabaseSettings], BeforeValidator(_with_warehouses)] = (
        DatabaseSettings()
    )
    catalog: CatalogSettings | None = None
    accounts: AccountsSettings = AccountsSettings()
    budgets: Budgets = ()
    exports: tuple[
        Annotated[SerializeAsAny[ExportSettings], BeforeValidator(_vendor_export)], ...
    ] = ()
    alerts: AlertSettings | None = None
    run_sizes: Annotated[tuple[RunSize, ...], AfterValidator(check_run_sizes)] = ()
    metrics: MetricsSettings = MetricsSettings()
    upkeep: UpkeepSettings = UpkeepSettings()

    @property
    def location(self) -> str:
        """The path of the settings file, for messages; `the settings` if no file was read."""
        return str(self.model_config.get("toml_file") or "the settings")

    def report_builder(self, exports: Sequence[ExportSettings] | None = None) -> ReportBuilder:
        """Return the builder of reports from the charges of these exports, by default of all.

        Nothing is read yet.
        """
        # They take time to import, and most commands make no report.
        from finops_dagster.reports.builder import ReportBuilder
        from finops_dagster.tables.database import DuckDB

        return ReportBuilder(
            self.project.name,
            self.storage.open_lake(),
            DuckDB.with_limits(self.database.duckdb),
            self.exports if exports is None else exports,
            self.accounts,
            self.budgets,
        )

    def open_catalog(self) -> IcebergCatalog:
        """Return the Iceberg catalog of the settings `[catalog]`, which must be set.

        Nothing is connected to. Raises ModuleNotFoundError if pyiceberg is not installed.
        """
        # It takes time to import, and is an extra.
        from finops_dagster.lake.catalog import IcebergCatalog

        assert self.catalog is not None
        return IcebergCatalog(self.catalog, str(self.storage.parquet_dir), self.storage.lake)

    @model_validator(mode="after")
    def _check_catalog(self) -> Settings:
        address = str(self.storage.parquet_dir)
        if self.catalog and "://" in address and not address.startswith("s3://"):
            raise ValueError(
                "catalog: works with a lake in a folder or in S3 only; remove it, or change "
                "storage.parquet_dir"
            )
        if self.catalog and any(e.table_name.lower() == CHARGES_TABLE for e in self.exports):
            raise ValueError(
                f"catalog: its table {CHARGES_TABLE} has the charges of all exports; give the "
                "export's table another name"
            )
        return self

    @model_validator(mode="after")
    def _check_unique(self) -> Settings:
        for key, names in {
            "name": [flat_name(export.name) for export in self.exports],
            "table": [export.table_name.lower() for export in self.exports],
        }.items():
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            if duplicates:
                raise ValueError(
                    f"two exports have the {key} {duplicates[0]!r}; give each its own (capitals, "
                    "and - in place of _, make no difference)"
                )
        return self

    @model_validator(mode="after")
    def _check_focus(self) -> Settings:
        tables = {export.table_name.lower(): n for n, export in enumerate(self.exports)}
        for table, number in tables.items():
            if (other := tables.get(f"{table}_focus")) is not None:
                raise ValueError(
                    f"exports[{other}].table is {table}_focus, which is the table of the charges "
                    f"of exports[{number}].table {table}; give one of them another name"
                )
        for export in self.exports:
            export.check_named_exports(self.exports)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let arguments override the environment, and the environment the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def dagster_home() -> Path:
    """Return the folder of Dagster's runs and events, which need not exist.

    It is DAGSTER_HOME, or else `.dagster` in the working directory, which `make dev` uses too.
    """
    return Path(os.environ.get("DAGSTER_HOME") or Path(".dagster").resolve())


def settings_file(path: Path | None = None) -> Path:
    """Return the path of the settings file. Raises SettingsError if it does not exist.

    It is `path`, or else FINOPS_CONFIG, or else the first that exists of config/finops.toml and
    config.toml in the working directory.
    """
    chosen = path or os.environ.get("FINOPS_CONFIG")
    for file in [Path(chosen)] if chosen else DEFAULT_CONFIGS:
        if file.is_file():
            return file
    if chosen:
        origin = "--config" if path else "FINOPS_CONFIG"
        raise SettingsError(
            f"{chosen}: the settings file does not exist; {origin} names it: correct that, or "
            "write the file by finops init --config FILE"
        )
    raise SettingsError(
        f"no settings file: {' and '.join(map(str, DEFAULT_CONFIGS))} do not exist, and neither "
        "--config nor FINOPS_CONFIG names another; finops init writes a first one"
    )


def load_settings(
    path: Path | None = None,
    backend: str | None = None,
    database_config: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of a file and of the environment. Raises SettingsError.

    The file is `settings_file(path)`. `backend`, or else OPEN_FINOPS_DATABASE_BACKEND, overrides
    the backend of the file and of FINOPS_DATABASE__BACKEND. `database_config` has values for that
    backend's table, which override those of file and environment.
    """
    file = settings_file(path)
    backend = backend or os.environ.get("OPEN_FINOPS_DATABASE_BACKEND")
    database: dict[Any, Any] = {"backend": backend} if backend else {}
    if database_config:
        database[_OVERRIDES] = dict(database_config)
    return _read_settings(file, {"database": database} if database else {})


def settings_with_exports(
    exports: Sequence[ExportSettings],
    path: Path | None = None,
    location: str = "the settings",
    **tables: Mapping[str, Any] | None,
) -> Settings:
    """Return settings with these exports, not those of file or environment. Raises SettingsError.

    `tables`, such as `storage`, override those of the environment and of the file at `path`, key by
    key; None overrides nothing. Without a path no file is read, but the environment is, and
    messages name `location` instead of the file.
    """
    overrides = {name: table for name, table in tables.items() if table is not None}
    file = None if path is None else settings_file(path)
    return _read_settings(file, {"exports": tuple(exports), **overrides}, location)


def export_settings(export: Mapping[str, Any], location: str) -> ExportSettings:
    """Return the settings of one export, validated by its vendor's class. Raises SettingsError.

    `export` has the keys and values of a block `[[exports]]`. Messages begin with `location`.
    """
    try:
        return _vendor_export(export)
    except ValidationError as error:
        raise SettingsError(problems_line(location, error)) from None


def _read_settings(
    file: Path | None, arguments: Mapping[str, Any], location: str = "the settings"
) -> Settings:
    """Return the settings of a file and the environment; `arguments` override both."""
    _refuse_unusable_variables()
    location = location if file is None else str(file)

    # pydantic-settings takes the path of a TOML file from the class, not from an argument.
    class FromFile(Settings, toml_file=file):
        pass

    try:
        return FromFile(**arguments)
    except ValidationError as error:
        raise SettingsError(problems_line(location, error)) from error
    except EnvironmentUnreadable as error:
        sections = tuple(f"FINOPS_{section.upper()}" for section in Settings.model_fields)
        variables = [name for name in os.environ if name.upper().startswith(sections)]
        raise SettingsError(
            f"environment variable {' or '.join(variables)}: the value of a table must be "
            "JSON; write JSON, or set single keys, such as FINOPS_DATABASE__BACKEND"
        ) from error
    except OSError as error:
        reason = f"{location} cannot be read: {error.strerror}; allow reading it"
        raise SettingsError(reason) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{location}: {first_line(error)}; correct the file") from error


def _refuse_unusable_variables() -> None:
    """Raise SettingsError for variables that pydantic-settings would ignore in silence."""
    for variable in os.environ:
        prefix, _, name = variable.upper().partition("_")
        section, is_nested, _ = name.partition("__")
        if prefix == "FINOPS" and is_nested and section.lower() not in Settings.model_fields:
            raise SettingsError(
                f"environment variable {variable}: there is no such setting; correct its name, or "
                "unset it"
            )
        if prefix == "FINOPS" and is_nested and section in _BLOCKS:
            raise SettingsError(
                f"environment variable {variable}: no variable sets a single key of "
                f"{_BLOCKS[section]}; change the settings file, or set FINOPS_{section} to all "
                f"{section.lower()} as JSON"
            )
    if URL.match(os.environ.get("DAGSTER_HOME", "")):
        raise SettingsError(
            "environment variable DAGSTER_HOME: is a URL; it must be a path on this machine"
        )
