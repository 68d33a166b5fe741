"""The address of a lake: a folder on this machine, or a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, NonNegativeInt

from finops_dagster.lake.folder import FolderLake
from finops_dagster.lake.lake import Lake
from finops_dagster.object_stores.settings import S3Settings, StoreSettings, split_source
from finops_dagster.settings_table import URL


class LakeSettings(S3Settings):
    """The settings of a lake: those of S3, and how many replaced versions of each month to keep."""

    keep_versions: NonNegativeInt = 0

    @property
    def store_settings(self) -> Mapping[str, Any]:
        """All settings but `keep_versions`, by key, as keyword arguments of `StoreSettings`."""
        return {key: value for key, value in vars(self).items() if key != "keep_versions"}


def _checked_address(address: object) -> object:
    """Return a path, or the address of a store as it was written. Raises ValueError."""
    if not isinstance(address, str) or not URL.match(address):
        return Path(address) if isinstance(address, str) else address
    scheme, _, rest = address.partition("://")
    if not rest or scheme == "file":
        raise ValueError(
            "is a URL; it must be a path on this machine or the address of a store, such as "
            "s3://bucket/folder"
        )
    split_source(address)
    return address


LakeAddress = Annotated[Path | str, BeforeValidator(_checked_address)]
"""A path on this machine, which need not exist, or the address of a store, such as s3://b/lake."""


def open_lake(address: Path | str, settings: LakeSettings, scratch: Path) -> Lake:
    """Return the lake at an address of `LakeAddress`; nothing is read or connected to.

    A folder must be a Path: a str is the address of a store. `scratch` is a folder for local copies
    of a store's files. Raises ValueError if a setting is not for this store, such as `region` for
    Azure.
    """
    if isinstance(address, Path):
        return FolderLake(address, settings.keep_versions)
    from finops_dagster.lake.store import StoreLake
    from finops_dagster.lake.store_client import StoreClient

    store = StoreSettings(source=address, **settings.store_settings)
    return StoreLake(StoreClient(store, scratch, settings.keep_versions))
