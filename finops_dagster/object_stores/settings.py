"""The settings of an object store: its address and credentials."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints, field_validator

from finops_dagster.billing.errors import excerpt
from finops_dagster.settings_table import SettingsTable

# The ARN of an S3 access point, which boto3 takes as a bucket; its name ends at the next slash.
ACCESS_POINT = re.compile(r"arn:[^/]*:(?:outpost[:/][^/:]+[:/])?accesspoint[:/][^/:]+(?=/|$)")


class StoreSettings(SettingsTable):
    """The settings of a store: a bucket or access point with a prefix, or a folder.

    All keys but `source` are for S3. The settings of exports that are delivered as files derive
    from this class.
    """

    source: Annotated[str, StringConstraints(pattern=r"^(s3|file)://.+")]
    region: str | None = None
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    requester_pays: bool = False

    @field_validator("source")
    @classmethod
    def _check_bucket(cls, source: str) -> str:
        bucket = source.removeprefix("s3://")
        if bucket.startswith("arn:") and not ACCESS_POINT.match(bucket):
            raise ValueError(
                f"{excerpt(source)} is not the ARN of an access point; write a bucket as s3://bucket/prefix"
            )
        return source
