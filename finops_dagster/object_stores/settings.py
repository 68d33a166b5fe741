"""The settings of an object store: its address and credentials."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import field_validator, model_validator

from finops_dagster.billing.errors import excerpt
from finops_dagster.object_stores.azure_address import AZURE_EXAMPLE, AZURE_SCHEMES, AzureAddress
from finops_dagster.settings_table import SettingsTable, pattern_validator

_ENDPOINT = "must be a URL, such as https://s3.acme.example"
# The ARN of an S3 access point, which boto3 takes as a bucket; its name ends at the next slash.
_ACCESS_POINT = re.compile(r"arn:[^/]*:(?:outpost[:/][^/:]+[:/])?accesspoint[:/][^/:]+(?=/|$)")


class S3Settings(SettingsTable):
    """The region, the endpoint and the credentials of a store in S3.

    `profile` is a profile of the AWS configuration files. `role_arn` is a role to assume, with
    `external_id` if its trust policy requires one. Without them, boto3 finds the credentials.
    """

    region: str | None = None
    endpoint_url: Annotated[str, pattern_validator(r"https?://\S+", _ENDPOINT)] | None = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None


class StoreSettings(S3Settings):
    """The settings of a store: a bucket, an access point or a container, or a folder.

    `source` is a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, one of Azure, or
    `file:///folder`. All other keys are for S3. A folder ignores them, so that an export can move
    to a copy of its bucket; a source in Azure or Google Cloud refuses them. The settings of exports
    that are delivered as files derive from this class.
    """

    source: str
    requester_pays: bool = False

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        split_source(source)
        return source

    @model_validator(mode="after")
    def _refuse_keys_of_s3(self) -> Self:
        keys = [key for key in StoreSettings.model_fields if key != "source" and getattr(self, key)]
        vendor = "Azure" if is_azure(self.source) else "Google"
        if keys and not self.source.startswith(("s3://", "file://")):
            raise ValueError(
                f"{', '.join(keys)}: only for a source in S3; remove it. {vendor}'s credentials "
                "come from the environment (docs/exports.md, Which rights does it need?)"
            )
        return self


def is_azure(source: str) -> bool:
    """Return whether a source has a scheme of Azure Blob Storage, such as `https` or `abfss`."""
    return source.partition("://")[0].lower() in AZURE_SCHEMES


def split_source(source: str) -> tuple[str, str]:
    """Return the address of a source's store, and the prefix in it.

    `s3://bucket/exports/cur/` gives `s3://bucket` and `exports/cur`. A source in Azure gives
    `AzureAddress.root`, whatever its scheme, and the decoded prefix. A folder gives `file://` and
    its path as it is written, with the first slash. Raises ValueError if the source is not the
    address of a store.
    """
    scheme, _, rest = source.partition("://")
    if is_azure(source):
        address = AzureAddress.parse(source)
        return address.root, address.prefix
    if not rest or scheme not in ("s3", "gs", "file"):
        raise ValueError(
            f"{excerpt(source)} is not the address of a store; write s3://bucket/prefix, "
            f"gs://bucket/prefix, {AZURE_EXAMPLE}, or file:///folder"
        )
    if scheme == "file":
        return "file://", rest
    access_point = _ACCESS_POINT.match(rest) if scheme == "s3" else None
    if scheme == "s3" and rest.startswith("arn:") and not access_point:
        raise ValueError(
            f"{excerpt(source)} is not the ARN of an access point; write a bucket as s3://bucket/prefix"
        )
    bucket = access_point[0] if access_point else rest.partition("/")[0]
    return f"{scheme}://{bucket}", rest.removeprefix(bucket).removeprefix("/").rstrip("/")


def join_source(root: str, prefix: str) -> str:
    """Return the source that `split_source` splits into this root and prefix.

    For a local folder, pass its path without the first slash, though `split_source` returns it with
    the slash.
    """
    if is_azure(root):
        prefix = prefix.replace("%", "%25").replace("?", "%3F")
    return f"{root}/{prefix}" if prefix or root == "file://" else root
