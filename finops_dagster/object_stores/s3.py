"""Amazon S3, and stores that speak its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreUnavailable
from finops_dagster.object_stores.aws_session import aws_session
from finops_dagster.object_stores.s3_errors import has_s3_code, s3_error
from finops_dagster.object_stores.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1024 * 1024

# botocore itself retries after 5xx, SlowDown and broken connections, with growing pauses.
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    max_pool_connections=32,
    connect_timeout=10,
    read_timeout=60,
    # Not every store that speaks S3 sends checksums; size, ETag and gzip are verified anyway.
    response_checksum_validation="when_required",
)


class S3Store(ObjectStore):
    """One bucket or access point, with boto3's credentials or those of the settings' role."""

    def __init__(self, bucket: str, settings: StoreSettings) -> None:
        self._bucket = bucket
        self._requester_pays = settings.requester_pays
        self._bucket_args: dict[str, Any] = {"Bucket": bucket}
        if settings.requester_pays:
            self._bucket_args["RequestPayer"] = "requester"
        with self._translated_errors(""):
            self._client = _client(settings, bucket)

    def location(self, key: str) -> str:
        """Return `s3://bucket/key`."""
        return f"s3://{self._bucket}/{key}"

    def folders(self, folder: str) -> set[str]:
        """List the folders in a folder, by one request for every thousand."""
        prefix = f"{folder}/" if folder else ""
        return {
            entry["Prefix"].removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix)
            for entry in page.get("CommonPrefixes", [])
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """List the objects in a folder, by one request for every thousand objects and folders."""
        prefix = f"{folder}/" if folder else ""
        return self._objects(self._pages(prefix))

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """List the objects below a folder, by one request for every thousand."""
        return self._objects(self._pages(f"{folder}/" if folder else "", delimiter=""))

    def _objects(self, pages: Iterable[Any]) -> list[ObjectInfo]:
        return [
            self._info(entry["Key"], {**entry, "ContentLength": entry["Size"]})
            for page in pages
            for entry in page.get("Contents", [])
            # S3's console creates an empty object whose key is the folder's.
            if not entry["Key"].endswith("/")
        ]

    def _pages(self, prefix: str, delimiter: str = "/") -> Iterator[Any]:
        with self._translated_errors(prefix):
            yield from self._client.get_paginator("list_objects_v2").paginate(
                **self._bucket_args, Prefix=prefix, Delimiter=delimiter
            )

    def head(self, key: str) -> ObjectInfo:
        """Send a HEAD request. Raises ObjectMissing."""
        with self._translated_errors(key):
            try:
                return self._info(key, self._client.head_object(**self._bucket_args, Key=key))
            except ClientError as error:
                # An answer to HEAD has no body, and so no reason; an answer to GET has one.
                if error.response["Error"]["Code"] in ("301", "400", "403"):
                    self._raise_reason(key)
                raise

    def _raise_reason(self, key: str) -> None:
        """Send a GET for one byte, and raise its error if the error has a code of S3."""
        try:
            self._client.get_object(**self._bucket_args, Key=key, Range="bytes=0-0")["Body"].close()
        except ClientError as error:
            if has_s3_code(error):
                raise

    def read(self, key: str, *, known_etag: str = "") -> tuple[bytes, ObjectInfo] | None:
        """Send one GET request, with If-None-Match. Raises ObjectMissing."""
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
        """Send one GET request, with If-Match. Raises ObjectChanged."""
        with self._translated_errors(info.key):
            response = self._client.get_object(**self._bucket_args, Key=info.key, IfMatch=info.etag)
            if response["ContentLength"] != info.size:
                raise StoreUnavailable(
                    f"{info.location}: S3 sends {response['ContentLength']} bytes, but the "
                    f"object has {info.size}"
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
        # An access point answers in its own region alone, which its ARN names.
        region = region or bucket.split(":")[3] or None
    session = aws_session(region, settings.profile, settings.role_arn, settings.external_id)
    return session.client("s3", endpoint_url=settings.endpoint_url, config=_CONFIG)
