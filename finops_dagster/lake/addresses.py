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
    """How a lake in S3 is reached, and how many replaced versions of each month are kept."""

    keep_versions: NonNegativeInt = 0

    @property
    def of_store(self) -> Mapping[str, Any]:
        """The settings that `StoreSettings` has too, by key, also those with default values."""
        return {key: value for key, value in vars(self).items() if key != "keep_versions"}


def _checked_address(address: object) -> object:
    """Return a path, or the address of a store as it was written. Raises ValueError."""
    if not isinstance(address, str) or not URL.match(address):
        return Path(address) if isinstance(address, str) else address
    scheme, _, rest = address.partition("://")
    if not rest or scheme == "file":
        raise ValueError("is a URL; it must be a path on this machine or the address of a store")
    split_source(address)
    return address


LakeAddress = Annotated[Path | str, BeforeValidator(_checked_address)]
"""A path on this machine, which need not exist, or the address of a store, such as s3://b/lake."""


def open_lake(address: Path | str, settings: LakeSettings, scratch: Path) -> Lake:
    """Return the lake at an address of `LakeAddress`; nothing is read or connected to.

    `scratch` is a folder for local copies of a store's files; a lake in a folder does not use it.
    Raises ValueError for keys that the store does not have.
    """
    if isinstance(address, Path):
        return FolderLake(address, settings.keep_versions)
    from finops_dagster.lake.store import StoreLake
    from finops_dagster.lake.store_client import StoreClient

    store = StoreSettings(source=address, **settings.of_store)
    return StoreLake(StoreClient(store, scratch, settings.keep_versions))
