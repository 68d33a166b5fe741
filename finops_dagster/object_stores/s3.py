"""Amazon S3, and whatever speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions as aws
from botocore.config import Config

from finops_dagster.object_stores import ObjectInfo, StoreError, StoreUnavailable
from finops_dagster.object_stores.s3_errors import has_reason, s3_error
from finops_dagster.object_stores.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

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
        self._of_bucket: dict[str, Any] = {"Bucket": bucket}
        if settings.requester_pays:
            self._of_bucket["RequestPayer"] = "requester"
        with self._explained(""):
            self._client = _client(settings, bucket)

    def location(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self._bucket}/{key}"

    def folders(self, folder: str) -> set[str]:
        """One LIST request for every thousand of them; what they hold is not listed."""
        prefix = f"{folder}/" if folder else ""
        with self._explained(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                **self._of_bucket, Prefix=prefix, Delimiter="/"
            )
            return {
                found["Prefix"].removeprefix(prefix).rstrip("/")
                for page in pages
                for found in page.get("CommonPrefixes", [])
            }

    def head(self, key: str) -> ObjectInfo:
        """One HEAD request; where it is refused, which HEAD gives no reason for, one GET of a byte
        for the reason. Raises ObjectMissing."""
        with self._explained(key):
            try:
                return self._info(key, self._client.head_object(**self._of_bucket, Key=key))
            except aws.ClientError as error:
                if error.response["Error"]["Code"] in ("301", "400", "403"):
                    self._raise_reason(key)
                raise

    def read(self, key: str, *, unless: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Return an object whole by one GET request (If-None-Match). Raises ObjectMissing."""
        condition: dict[str, Any] = {"IfNoneMatch": f'"{unless}"'} if unless else {}
        with self._explained(key):
            try:
                response = self._client.get_object(**self._of_bucket, Key=key, **condition)
            except aws.ClientError as error:
                if error.response["Error"]["Code"] == "304":
                    return None
                raise
            return response["Body"].read(), self._info(key, response)

    def chunks(self, version: ObjectInfo) -> Iterator[bytes]:
        """One GET request for this very version (If-Match). Raises ObjectChanged."""
        with self._explained(version.key):
            response = self._client.get_object(
                **self._of_bucket, Key=version.key, IfMatch=version.etag
            )
            if response["ContentLength"] != version.size:
                raise StoreUnavailable(
                    f"{version.location}: {response['ContentLength']} bytes were offered of an "
                    f"object that has {version.size}"
                )
            yield from response["Body"].iter_chunks(_CHUNK_BYTES)

    def _raise_reason(self, key: str) -> None:
        """Raise what S3 says when the object is asked for with GET, if that says more than HEAD."""
        try:
            self._client.get_object(**self._of_bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except aws.ClientError as error:
            if has_reason(error):
                raise

    def _info(
        self, key: str, response: HeadObjectOutputTypeDef | GetObjectOutputTypeDef
    ) -> ObjectInfo:
        return ObjectInfo(
            key,
            self.location(key),
            response["ContentLength"],
            response["ETag"].strip('"'),
            response["LastModified"],
        )

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Say what AWS says in one line, and whether asking again may help."""
        where = self.location(key)
        try:
            yield
        except aws.ClientError as error:
            raise s3_error(error, where, requester_pays=self._requester_pays) from error
        except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
            raise StoreError(
                f"{where}: no AWS credentials were found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give the export a profile or role_arn"
            ) from error
        except aws.NoRegionError as error:
            raise StoreError(
                f"{where}: no AWS region is known; set the export's region, or AWS_DEFAULT_REGION"
            ) from error
        except aws.MissingDependencyException as error:
            raise StoreError(
                f"{where}: a multi-region access point takes another package: "
                "pip install 'botocore[crt]'"
            ) from error
        except (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError) as error:
            raise StoreUnavailable(f"{where}: {error}") from error
        except aws.BotoCoreError as error:
            raise StoreError(f"{where}: {' '.join(str(error).split())}") from error


def _client(settings: StoreSettings, bucket: str) -> S3Client:
    region = settings.region
    if bucket.startswith("arn:"):
        region = region or bucket.split(":")[3] or None  # an access point is called in its own
    session = boto3.Session(profile_name=settings.profile, region_name=region)
    if settings.role_arn:
        session = _assumed(session, settings.role_arn, settings.external_id)
    return session.client("s3", endpoint_url=settings.endpoint_url, config=_CONFIG)


def _assumed(session: boto3.Session, role_arn: str, external_id: str | None) -> boto3.Session:
    """A session in another role, whose credentials renew themselves during a long month."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.session import get_session

    source = session.get_credentials()
    if source is None:
        raise aws.NoCredentialsError
    arguments = {"RoleSessionName": "finops_dagster"}
    if external_id:
        arguments["ExternalId"] = external_id
    fetcher = AssumeRoleCredentialFetcher(
        session._session.create_client, source, role_arn, arguments
    )
    assumed = get_session()
    assumed._credentials = DeferredRefreshableCredentials(  # type: ignore[attr-defined]
        method="assume-role", refresh_using=fetcher.fetch_credentials
    )
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)
