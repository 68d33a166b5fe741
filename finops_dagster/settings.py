"""The typed shape of config/*.toml and of the environment."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceUnreadable

from finops_dagster.billing.columns import flat_name
from finops_dagster.billing.errors import first_line, listed, shown
from finops_dagster.settings_table import (
    URL,
    LocalPath,
    SettingsError,
    SettingsTable,
    problems,
    unknown_key,
)
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.warehouses import WAREHOUSES
from finops_dagster.warehouses.duckdb import Settings as DuckDBSettings

DEFAULT_CONFIGS = (Path("config/finops.toml"), Path("config.toml"))


class ProjectSettings(SettingsTable):
    """What the project is called: the title of its report."""

    name: str = "Billing months"


class StorageSettings(SettingsTable):
    """Folders, relative to the working directory; and how many times its size a compressed file may
    inflate to, and how many bytes all files of a month together."""

    staging_dir: LocalPath = Path("data/staging")
    parquet_dir: LocalPath = Path("data/parquet")
    # Deflate reaches 1,032. Bills of CSV come to 10 or 30, the most repetitive to about 100; the
    # largest that anybody tells of is 30 GB a month.
    max_inflation: PositiveInt = 300
    max_inflated_bytes: PositiveInt = 10**12


class DatabaseSettings(SettingsTable):
    """Where months end: at Parquet (`duckdb` without a `warehouse_path`), or in a warehouse beyond,
    whose file in warehouses/ knows the keys of its table."""

    model_config = ConfigDict(extra="allow")

    backend: str = "duckdb"
    duckdb: DuckDBSettings = DuckDBSettings()

    @field_validator("backend")
    @classmethod
    def _is_known(cls, backend: str) -> str:
        if backend not in WAREHOUSES:
            raise ValueError(f"{shown(backend)} is none of {', '.join(WAREHOUSES)}")
        return backend

    @model_validator(mode="after")
    def _keeps_its_secrets(self) -> Self:
        return self  # the file of each warehouse looks at its own table

    @model_validator(mode="after")
    def _other_tables_are_warehouses(self) -> DatabaseSettings:
        for name, table in (self.model_extra or {}).items():
            if name not in WAREHOUSES or not isinstance(table, dict):
                raise ValueError(unknown_key(name, f" {listed([name], 1)}"))
        return self

    @property
    def has_warehouse(self) -> bool:
        """Whether the chain goes on after Parquet."""
        return self.backend != "duckdb" or self.duckdb.warehouse_path is not None

    @property
    def warehouse(self) -> SettingsTable:
        """The chosen backend's own table. Raises SettingsError."""
        if self.backend == "duckdb":
            return self.duckdb
        table = (self.model_extra or {}).get(self.backend, {})
        try:
            return WAREHOUSES[self.backend].model_validate(table)
        except ValidationError as error:
            raise SettingsError(problems(f"[database.{self.backend}]", error)) from error


class _OfVendor(SettingsTable):
    model_config = ConfigDict(extra="ignore")

    vendor: str

    @field_validator("vendor")
    @classmethod
    def _is_known(cls, vendor: str) -> str:
        if vendor not in VENDORS:
            raise ValueError(f"{shown(vendor)} is none of {', '.join(VENDORS)}")
        return vendor


def _by_vendor(table: object) -> ExportSettings:
    """Return an export as its vendor declares it; pydantic's own union would put the vendor's name
    into the key of every error."""
    if isinstance(table, ExportSettings):
        return table
    return VENDORS[_OfVendor.model_validate(table).vendor].settings.model_validate(table)


AnyExport = Annotated[SerializeAsAny[ExportSettings], BeforeValidator(_by_vendor)]


class Settings(BaseSettings):
    """Everything that can be set; `FINOPS_DATABASE__BACKEND=bigquery` and the like win over the
    file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix="FINOPS_",
        env_nested_delimiter="__",
    )

    project: ProjectSettings = ProjectSettings()
    storage: StorageSettings = StorageSettings()
    database: DatabaseSettings = DatabaseSettings()
    exports: tuple[AnyExport, ...] = ()

    @model_validator(mode="after")
    def _nothing_is_shared(self) -> Settings:
        for what, names in {
            "name": [flat_name(export.name) for export in self.exports],
            "table": [export.table_name.lower() for export in self.exports],
        }.items():
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise ValueError(
                    f"two exports have the {what} {twice[0]!r}; each needs one of its own"
                )
        return self


def dagster_home() -> Path:
    """Where Dagster keeps its history: DAGSTER_HOME, or else `.dagster` in the working directory,
    which `make dev` shows too."""
    return Path(os.environ.get("DAGSTER_HOME") or Path(".dagster").resolve())


def settings_file(path: Path | None = None) -> Path:
    """Return the settings file: `path`, or else the one in FINOPS_CONFIG, or else the first that is
    there of config/finops.toml and config.toml. Raises SettingsError."""
    named = path or os.environ.get("FINOPS_CONFIG")
    for file in [Path(named)] if named else DEFAULT_CONFIGS:
        if file.is_file():
            return file
    if named:
        where = "--config" if path else "FINOPS_CONFIG"
        raise SettingsError(f"{named}: there is no such settings file; {where} names it")
    raise SettingsError(
        f"there is no settings file: neither {' nor '.join(map(str, DEFAULT_CONFIGS))}, and "
        "FINOPS_CONFIG and --config name no other; finops init writes a first one"
    )


def load_settings(
    path: Path | None = None,
    backend: str | None = None,
    database_config: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings file that `settings_file` names.

    `backend` wins over it, and so does OPEN_FINOPS_DATABASE_BACKEND; `database_config` are values
    for the backend's own table. Raises SettingsError, whose text is one line.
    """
    file = settings_file(path)
    backend = backend or os.environ.get("OPEN_FINOPS_DATABASE_BACKEND")
    database: dict[str, Any] = {"backend": backend} if backend else {}
    if database_config:
        chosen = backend or _read(file, {}).database.backend
        database[chosen] = dict(database_config)
    return _read(file, {"database": database} if database else {})


def _read(file: Path, overrides: dict[str, Any]) -> Settings:
    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            from_file = TomlConfigSettingsSource(settings_cls, toml_file=file)
            return init_settings, env_settings, from_file

    _refuse_unknown_variables()
    if URL.match(os.environ.get("DAGSTER_HOME", "")):
        raise SettingsError(
            "environment variable DAGSTER_HOME: is a URL; it must be a path on this machine"
        )
    try:
        return FromFile(**overrides)
    except ValidationError as error:
        raise SettingsError(problems(str(file), error)) from error
    except SourceUnreadable as error:
        sections = tuple(f"FINOPS_{section.upper()}" for section in Settings.model_fields)
        given = [name for name in os.environ if name.upper().startswith(sections)]
        raise SettingsError(
            f"environment variable {' or '.join(given)}: is no JSON, as a table must be; a single "
            "key is set as in FINOPS_DATABASE__BACKEND"
        ) from error
    except (ValueError, RecursionError, OSError) as error:
        raise SettingsError(f"{file}: {first_line(error)}") from error


def _refuse_unknown_variables() -> None:
    """What no setting is named like would be left out in silence."""
    for variable in os.environ:
        prefix, _, name = variable.upper().partition("_")
        section, is_nested, _ = name.partition("__")
        if prefix == "FINOPS" and is_nested and section.lower() not in Settings.model_fields:
            raise SettingsError(f"environment variable {variable}: there is no such setting")
