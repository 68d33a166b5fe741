"""The address of a lake: a folder on this machine, or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from finops_dagster.lake.folder import FolderLake
from finops_dagster.lake.lake import Lake
from finops_dagster.object_stores.settings import S3Settings, StoreSettings, split_source
from finops_dagster.settings_table import URL


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


def open_lake(address: Path | str, settings: S3Settings, scratch: Path) -> Lake:
    """Return the lake at an address of `LakeAddress`; nothing is read or connected to.

    `settings` are for a lake in S3, and `scratch` is a folder for local copies of a store's files.
    A lake in a folder uses neither. Raises ValueError for keys that the store does not have.
    """
    if isinstance(address, Path):
        return FolderLake(address)
    from finops_dagster.lake.store import StoreLake
    from finops_dagster.lake.store_client import StoreClient

    keys: dict[str, Any] = vars(settings)
    return StoreLake(StoreClient(StoreSettings(source=address, **keys), scratch))
