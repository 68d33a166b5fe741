"""Amazon S3, and stores that speak its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from s3transfer.manager import TransferConfig, TransferManager

from finops_dagster.object_stores import ObjectInfo, StoreUnavailable, WritableStore
from finops_dagster.object_stores.aws_session import aws_session
from finops_dagster.object_stores.s3_errors import has_s3_code, is_refused_condition, s3_error
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.object_stores.uploads import (
    compare_checksums,
    crc32_base64,
    file_chunks,
    resolve_refused_write,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyarrow.fs import FileSystem

_CHUNK_BYTES = 1024 * 1024
_PART_BYTES = 8 * 1024 * 1024
_TRANSFERS = TransferConfig(
    multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_request_concurrency=4
)
# S3 then has one checksum of all bytes; a checksum of the parts' checksums depends on their sizes.
_CHECKSUM = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}

# botocore itself retries after 5xx, SlowDown and broken connections, with growing pauses.
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 6},
    max_pool_connections=32,
    connect_timeout=10,
    read_timeout=60,
    # Not every store that speaks S3 sends checksums; size, ETag and gzip are verified anyway.
    response_checksum_validation="when_required",
)


class S3Store(WritableStore):
    """A store in one bucket or access point, with boto3's credentials or those of a role.

    A listing takes one request for every 1,000 objects and folders.
    """

    def __init__(self, bucket: str, settings: StoreSettings) -> None:
        self._bucket = bucket
        self._requester_pays = settings.requester_pays
        self._bucket_args: dict[str, Any] = {"Bucket": bucket}
        if settings.requester_pays:
            self._bucket_args["RequestPayer"] = "requester"
        with self._translated_errors(""):
            self._session = _session(settings, bucket)
            self._client: S3Client = self._session.client(
                "s3", endpoint_url=settings.endpoint_url, config=_CONFIG
            )

    def location(self, key: str) -> str:
        """Return `s3://bucket/key`."""
        return f"s3://{self._bucket}/{key}"

    def folder_names(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder."""
        prefix = f"{folder}/" if folder else ""
        return {
            entry["Prefix"].removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix)
            for entry in page.get("CommonPrefixes", [])
        }

    def files(self, folder: str) -> list[ObjectInfo]:
        """Return the objects directly in a folder, sorted by key."""
        prefix = f"{folder}/" if folder else ""
        return self._objects(self._pages(prefix))

    def files_below(self, folder: str) -> list[ObjectInfo]:
        """Return the objects in a folder and all folders below it, sorted by key."""
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
        """Return an object's size, ETag and time, by a HEAD request. Raises ObjectMissing."""
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
        """Return a small object's bytes and description; None if its ETag is still `known_etag`.

        One GET request, with If-None-Match. Raises ObjectMissing.
        """
        condition: dict[str, Any] = {"IfNoneMatch": f'"{known_etag}"'} if known_etag else {}
        with self._translated_errors(key):
            try:
                response = self._client.get_object(**self._bucket_args, Key=key, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] == "304":
                    return None
                raise
            return response["Body"].read(), self._info(key, response)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield an object's bytes, by one GET request with If-Match.

        Raises ObjectMissing and ObjectChanged.
        """
        with self._translated_errors(info.key):
            response = self._client.get_object(**self._bucket_args, Key=info.key, IfMatch=info.etag)
            if response["ContentLength"] != info.size:
                raise StoreUnavailable(
                    f"{info.location}: S3 sends {response['ContentLength']} bytes, but the "
                    f"object has {info.size} bytes"
                )
            yield from response["Body"].iter_chunks(_CHUNK_BYTES)

    def upload(self, path: Path, key: str) -> ObjectInfo:
        """Upload a file in parts of 8 MiB, four at a time, and return the object's description.

        A HEAD request then gets the store's CRC32 of the object, which must be the file's. Some
        stores have none of the whole object: then the object is downloaded to compute it.
        """
        with self._translated_errors(key):
            with TransferManager(self._client, _TRANSFERS) as transfers:
                arguments = {**self._bucket_args, **_CHECKSUM}
                upload = transfers.upload(
                    str(path), arguments.pop("Bucket"), key, extra_args=arguments
                )
                checksum = crc32_base64(file_chunks(path))  # while the threads of the client send
                upload.result()
            response = self._client.head_object(
                **self._bucket_args, Key=key, ChecksumMode="ENABLED"
            )
        info = self._info(key, response)
        stored = response.get("ChecksumCRC32", "")
        if not stored or response.get("ChecksumType") == "COMPOSITE" or "-" in stored:
            # Not every store that speaks S3 has a checksum of all bytes.
            stored = crc32_base64(self.read_chunks(info))
        compare_checksums(info.location, "CRC32", checksum, stored)
        return info

    def replace_if_unchanged(self, key: str, content: bytes, *, etag: str | None) -> str:
        """Write a small object on the condition of its ETag; return the new ETag.

        One PUT request. Raises as `WritableStore.replace_if_unchanged`.
        """
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self._translated_errors(key):
            try:
                response = self._client.put_object(
                    **self._bucket_args, Key=key, Body=content, **condition
                )
            except ClientError as error:
                if not is_refused_condition(error):
                    raise
                return resolve_refused_write(self, key, content, etag)
            return response["ETag"].strip('"')

    def delete(self, key: str) -> None:
        """Delete an object, by one DELETE request; do nothing if there is none."""
        with self._translated_errors(key):
            self._client.delete_object(**self._bucket_args, Key=key)

    def filesystem(self) -> tuple[FileSystem, str]:
        """Return pyarrow's file system with the client's credentials, and the bucket."""
        from pyarrow.fs import S3FileSystem

        with self._translated_errors(""):
            credentials = self._session.get_credentials()
            if not credentials:
                raise NoCredentialsError
            keys = credentials.get_frozen_credentials()
        endpoint = self._client.meta.endpoint_url
        return S3FileSystem(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.token,
            region=self._client.meta.region_name,
            # With another endpoint, pyarrow puts the bucket into the path, which AWS discourages.
            endpoint_override=None if "amazonaws.com" in endpoint else endpoint,
        ), self._bucket

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


def _session(settings: StoreSettings, bucket: str) -> boto3.Session:
    region = settings.region
    if bucket.startswith("arn:"):
        # An access point answers in its own region alone, which its ARN names.
        region = region or bucket.split(":")[3] or None
    return aws_session(region, settings.profile, settings.role_arn, settings.external_id)
