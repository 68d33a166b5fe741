"""The settings of the Snowflake warehouse."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from finops_dagster.settings_table import SettingsTable, pattern_validator

_STAGE = "must be the name of a stage, such as finops.public.lake, and folders, each after a slash"
_ADDRESS = re.compile(r"^https?://|\.snowflakecomputing\.(com|cn)(/.*)?$", re.IGNORECASE)


class SnowflakeSettings(SettingsTable):
    """A schema of a database.

    `account` is the account's identifier, or its address: acme-finops.snowflakecomputing.com.
    `warehouse` is Snowflake's word for the machines that run statements. The environment has
    SNOWFLAKE_PASSWORD, or SNOWFLAKE_PRIVATE_KEY_PATH and, if the key has a passphrase,
    SNOWFLAKE_PRIVATE_KEY_PASSPHRASE; the key is used if both are set. `stage` is an external stage
    whose root is a lake in a store, or a copy of a lake in a folder, which you keep up to date:
    files are then read from there, and not uploaded. `host`, `port` and `protocol` are for a server
    at another address.
    """

    account: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    user: str
    warehouse: str
    database: str
    schema_name: str = Field(default="PUBLIC", alias="schema")
    role: str | None = None
    stage: Annotated[str, pattern_validator(r'[\w$."]+(/[\w$.=-]+)*', _STAGE)] | None = None
    host: str | None = None
    port: int = 443
    protocol: Literal["https", "http"] = "https"

    @field_validator("account", mode="after")
    @classmethod
    def _without_address(cls, account: str) -> str:
        # The connector adds the address, even if the identifier already ends in it.
        identifier = _ADDRESS.sub("", account)
        if "/" in identifier:  # app.snowflake.com/acme/finops, which the browser shows
            raise ValueError(
                "is no account's identifier, such as acme-finops; write it without an address"
            )
        return identifier
