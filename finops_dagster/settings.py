"""The typed shape of config/*.toml and of the environment."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    PositiveInt,
    StringConstraints,
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
from finops_dagster.billing.months import BillingMonth
from finops_dagster.settings_table import (
    URL,
    LocalPath,
    SettingsError,
    SettingsTable,
    problems,
    unknown_key,
)
from finops_dagster.warehouses import WAREHOUSES
from finops_dagster.warehouses.duckdb import Settings as DuckDBSettings

DEFAULT_CONFIGS = (Path("config/finops.toml"), Path("config.toml"))
# The ARN of an S3 access point, which boto3 takes for a bucket; its name ends at the next slash.
ACCESS_POINT = re.compile(r"arn:[^/]*:(?:outpost[:/][^/:]+[:/])?accesspoint[:/][^/:]+(?=/|$)")


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


class ExportSettings(SettingsTable):
    """One cost export of one vendor; its name is the first part of its asset keys. Without a
    `format`, the one that its layout shows is taken; without an `end_month`, months come until the
    one in progress. `copied` says that the source is a copy, whose times are those of copying.
    `decimals` says what is done with an amount of money that has more than 18: refused, or rounded
    and counted."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
    vendor: Literal["aws"]
    format: Literal["cur1", "cur2", "focus"] | None = None
    source: Annotated[str, StringConstraints(pattern=r"^(s3|file)://.+")]
    export_name: Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$")]
    start_month: str
    end_month: str | None = None
    table: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = ""
    column_names: Literal["flat", "athena"] = "flat"
    decimals: Literal["exact", "round"] = "exact"
    region: str | None = None
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    copied: bool = False
    requester_pays: bool = False
    sensor: bool = False

    @field_validator("source")
    @classmethod
    def _is_a_place(cls, source: str) -> str:
        place = source.removeprefix("s3://")
        if place.startswith("arn:") and not ACCESS_POINT.match(place):
            raise ValueError(
                f"{shown(source)} is no ARN of an access point; a bucket is s3://bucket/prefix"
            )
        return source

    @field_validator("start_month", "end_month")
    @classmethod
    def _is_a_month(cls, key: str | None) -> str | None:
        return key and str(BillingMonth.parse(key))

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.end_month is not None and self.end_month < self.start_month:
            raise ValueError(f"end_month {self.end_month} is before start_month {self.start_month}")
        return self

    @cached_property
    def group(self) -> str:
        """The name as Dagster takes it for groups, jobs and sensors."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.name)

    def months(self) -> list[BillingMonth]:
        """Every month from the first to the last, or to the one in progress; the oldest first."""
        months = [BillingMonth.parse(self.start_month)]
        last = BillingMonth.current()
        if self.end_month is not None:
            last = min(last, BillingMonth.parse(self.end_month))
        while months[-1] < last:
            months.append(months[-1].next)
        return months

    @property
    def table_name(self) -> str:
        """The table of this export, in DuckDB and in the warehouse."""
        return self.table or self.group


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
    exports: tuple[ExportSettings, ...] = ()

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
