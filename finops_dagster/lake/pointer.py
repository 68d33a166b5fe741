"""The pointer of a month in a store: which object is the month's file, and what that records."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.lake.footer import file_sha256, footer_texts
from finops_dagster.object_stores import ObjectInfo, StoreError


@dataclass(frozen=True)
class Pointer:
    """What a month's pointer says: the name of its file beside it, and all of the file's record.

    `texts` are those of the file's footer, and `schema` are its columns. So nobody needs to read
    the file to know its version or to plan a query.
    """

    name: str
    size: int
    sha256: str
    etag: str
    written_at: datetime
    texts: Mapping[str, str]
    schema: pa.Schema

    @classmethod
    def of(cls, path: Path, name: str, uploaded: ObjectInfo) -> Pointer:
        """Return the pointer to an uploaded file, whose name is beside the pointer's."""
        texts, now = footer_texts(path), datetime.now(UTC).replace(tzinfo=None)
        if texts is None:
            raise StoreError(f"{path} is no Parquet file; run the month again")
        schema = pq.read_schema(path).remove_metadata()
        return cls(name, uploaded.size, file_sha256(path), uploaded.etag, now, texts, schema)

    @classmethod
    def parse(cls, content: bytes) -> Pointer | None:
        """Return the pointer in a document; None if it is damaged, or not one of ours."""
        try:
            row: dict[str, Any] = json.loads(content)
            schema = pa.ipc.read_schema(pa.py_buffer(zlib.decompress(_decoded(row["schema"]))))
            written_at = datetime.fromisoformat(row["written_at"])
            return cls(**{**row, "written_at": written_at, "schema": schema})
        except (ValueError, KeyError, TypeError, zlib.error, pa.ArrowInvalid):
            return None

    def document(self) -> bytes:
        """Return the document that `parse` reads."""
        schema = zlib.compress(self.schema.serialize().to_pybytes())
        row = {
            **vars(self),
            "written_at": self.written_at.isoformat(),
            "schema": base64.b64encode(schema).decode(),
        }
        return json.dumps(row, indent=1).encode()


def new_name(stem: str) -> str:
    """Return a name for a new file of a month, which no other file has ever had."""
    return f"{stem}-{uuid4().hex[:12]}.parquet"


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
