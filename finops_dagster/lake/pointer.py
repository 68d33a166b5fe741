"""The pointer of a month in a store: the name of the month's file, and a copy of its footer."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.lake.footer import footer_texts
from finops_dagster.lake.lake import NewFile
from finops_dagster.object_stores import ObjectInfo, StoreError


@dataclass(frozen=True)
class Pointer:
    """The record of a month's file: its name in the pointer's folder, and what its footer has.

    `texts` are those of the file's footer (see `footer_texts`), and `schema` its columns. So the
    file is not opened to know its version or to plan a query. `sha256` is of the file's bytes,
    `etag` that of the uploaded file, and `written_at` is in UTC without a zone.
    """

    name: str
    size: int
    sha256: str
    etag: str
    written_at: datetime
    texts: Mapping[str, str]
    schema: pa.Schema

    @classmethod
    def of_upload(cls, new: NewFile, name: str, uploaded: ObjectInfo) -> Pointer:
        """Return the pointer to a new file that was uploaded.

        `uploaded` is what the store returned for the upload. `written_at` is now. Raises StoreError
        if the new file is not a Parquet file.
        """
        texts, written_at = footer_texts(new.path), datetime.now(UTC).replace(tzinfo=None)
        if texts is None:
            raise StoreError(f"{new.path} is not a Parquet file; run the month again")
        schema = pq.read_schema(new.path).remove_metadata()
        return cls(name, uploaded.size, new.sha256, uploaded.etag, written_at, texts, schema)

    @classmethod
    def from_json(cls, content: bytes) -> Pointer | None:
        """Return the pointer of a JSON document; None if it is damaged, or not from `to_json`."""
        try:
            row: dict[str, Any] = json.loads(content)
            schema = pa.ipc.read_schema(pa.py_buffer(zlib.decompress(_decoded(row["schema"]))))
            written_at = datetime.fromisoformat(row["written_at"])
            return cls(**{**row, "written_at": written_at, "schema": schema})
        except (ValueError, KeyError, TypeError, zlib.error, pa.ArrowInvalid):
            return None

    def to_json(self) -> bytes:
        """Return the pointer as a JSON document, which `from_json` reads."""
        schema = zlib.compress(self.schema.serialize().to_pybytes())
        row = {
            **vars(self),
            "written_at": self.written_at.isoformat(),
            "schema": base64.b64encode(schema).decode(),
        }
        return json.dumps(row, indent=1).encode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
