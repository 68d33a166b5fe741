"""Amazon S3, and whatever speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, ClientError

from finops_dagster.object_stores import ObjectInfo, StoreUnavailable
from finops_dagster.object_stores.s3_errors import has_reason, s3_error
from finops_dagster.object_stores.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1024 * 1024

# botocore itself asks again after 5xx, SlowDown and broken connections, with growing pauses.
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    max_pool_connections=32,
    connect_timeout=10,
    read_timeout=60,
    # Not every store that speaks S3 answers with checksums; size, ETag and gzip are held anyway.
    response_checksum_validation="when_required",
)


class S3Store:
    """One bucket or access point, with the credentials that boto3 finds or the role that the
    settings name."""

    def __init__(self, bucket: str, settings: StoreSettings) -> None:
        self._bucket = bucket
        self._requester_pays = settings.requester_pays
        # What every request has, beside the key.
        self._bucket_args: dict[str, Any] = {"Bucket": bucket}
        if settings.requester_pays:
            self._bucket_args["RequestPayer"] = "requester"
        with self._translated_errors(""):
            self._client = _client(settings, bucket)

    def location(self, key: str) -> str:
        """Return `s3://bucket/key`."""
        return f"s3://{self._bucket}/{key}"

    def folders(self, folder: str) -> set[str]:
        """List folders by one request for every thousand; what they hold is not listed."""
        prefix = f"{folder}/" if folder else ""
        return {
            found["Prefix"].removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix)
            for found in page.get("CommonPrefixes", [])
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """List objects by one request for every thousand of them and of folders."""
        prefix = f"{folder}/" if folder else ""
        return [
            self._info(found["Key"], {**found, "ContentLength": found["Size"]})
            for page in self._pages(prefix)
            for found in page.get("Contents", [])
            if found["Key"] != prefix
        ]

    def _pages(self, prefix: str) -> Iterator[Any]:
        with self._translated_errors(prefix):
            yield from self._client.get_paginator("list_objects_v2").paginate(
                **self._bucket_args, Prefix=prefix, Delimiter="/"
            )

    def head(self, key: str) -> ObjectInfo:
        """Send a HEAD request; where it is refused, which HEAD gives no reason for, a GET of a byte
        for the reason. Raises ObjectMissing."""
        with self._translated_errors(key):
            try:
                return self._info(key, self._client.head_object(**self._bucket_args, Key=key))
            except ClientError as error:
                if error.response["Error"]["Code"] in ("301", "400", "403"):
                    self._raise_reason(key)
                raise

    def _raise_reason(self, key: str) -> None:
        """Raise what S3 says when the object is asked for with GET, if that says more than HEAD."""
        try:
            self._client.get_object(**self._bucket_args, Key=key, Range="bytes=0-0")["Body"].close()
        except ClientError as error:
            if has_reason(error):
                raise

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Read an object whole by one GET request (If-None-Match). Raises ObjectMissing."""
        condition: dict[str, Any] = {"IfNoneMatch": f'"{known_etag}"'} if known_etag else {}
        with self._translated_errors(key):
            try:
                response = self._client.get_object(**self._bucket_args, Key=key, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] == "304":
                    return None
                raise
            return response["Body"].read(), self._info(key, response)

    def chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Read this very version by one GET request (If-Match). Raises ObjectChanged."""
        with self._translated_errors(info.key):
            response = self._client.get_object(**self._bucket_args, Key=info.key, IfMatch=info.etag)
            if response["ContentLength"] != info.size:
                raise StoreUnavailable(
                    f"{info.location}: {response['ContentLength']} bytes were offered of an "
                    f"object that has {info.size}"
                )
            yield from response["Body"].iter_chunks(_CHUNK_BYTES)

    def _info(self, key: str, response: Mapping[str, Any]) -> ObjectInfo:
        size, etag = response["ContentLength"], response["ETag"].strip('"')
        return ObjectInfo(key, self.location(key), size, etag, response["LastModified"])

    @contextmanager
    def _translated_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            pays = self._requester_pays
            raise s3_error(error, self.location(key), requester_pays=pays) from error


def _client(settings: StoreSettings, bucket: str) -> S3Client:
    region = settings.region
    if bucket.startswith("arn:"):
        region = region or bucket.split(":")[3] or None  # an access point is called in its own
    session = boto3.Session(profile_name=settings.profile, region_name=region)
    if settings.role_arn:
        assumed_session = botocore.session.get_session()
        role = _AssumedRole(session, settings.role_arn, settings.external_id)
        assumed_session.register_component("credential_provider", CredentialResolver([role]))
        session = boto3.Session(botocore_session=assumed_session, region_name=session.region_name)
    return session.client("s3", endpoint_url=settings.endpoint_url, config=_CONFIG)


class _AssumedRole(CredentialProvider):
    """The credentials of another role, which renew themselves during a long month."""

    METHOD = "assume-role"

    def __init__(self, source: boto3.Session, role_arn: str, external_id: str | None) -> None:
        super().__init__()
        self._source, self._role = source, {"RoleArn": role_arn}
        if external_id:
            self._role["ExternalId"] = external_id

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._assume, self.METHOD)

    def _assume(self) -> dict[str, str]:
        sts: Any = self._source.client("sts")
        role = sts.assume_role(**self._role, RoleSessionName="finops_dagster")["Credentials"]
        return {
            "access_key": role["AccessKeyId"],
            "secret_key": role["SecretAccessKey"],
            "token": role["SessionToken"],
            "expiry_time": role["Expiration"].isoformat(),
        }
