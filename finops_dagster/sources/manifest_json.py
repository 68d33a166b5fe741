"""The parts of a manifest that every vendor writes as JSON: its object, ids and keys of files.

Whatever bytes a manifest holds, each function returns a value or raises ManifestInvalid.
"""

from __future__ import annotations

import codecs
from typing import Any

from pydantic_core import from_json

from finops_dagster.billing.errors import CONTROL_CHARACTER, ManifestInvalid, excerpt
from finops_dagster.billing.manifest import ManifestFile

_MAX_ID_LENGTH = 256
UNREADABLE_ADVICE = (
    "wait for the vendor's next manifest (where this is a copy of the vendor's bucket, copy the "
    "manifest again)"
)


def json_object(body: bytes, source: ManifestFile) -> dict[str, Any]:
    """Return the JSON object of a manifest. Raises ManifestInvalid, also for broken Unicode."""
    try:
        document = from_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise ManifestInvalid(
            f"{source.location} is not JSON: {error}; {UNREADABLE_ADVICE}"
        ) from error
    if not isinstance(document, dict):
        raise ManifestInvalid(
            f"{source.location} is not a JSON object but a {type(document).__name__}; "
            f"{UNREADABLE_ADVICE}"
        )
    return document


def validated_vendor_id(vendor_id: str, source: ManifestFile) -> str:
    """Return the vendor's id unchanged; raise ManifestInvalid if it cannot be a version id.

    An id has at most 256 characters, all of them printable, and is not blank. The empty text is not
    refused here.
    """
    if len(vendor_id) > _MAX_ID_LENGTH or not vendor_id.isprintable() or vendor_id.isspace():
        raise ManifestInvalid(
            f"{source.location}: {excerpt(vendor_id)} is not a usable version id; "
            f"{UNREADABLE_ADVICE}"
        )
    return vendor_id


def validated_key(key: Any, source: ManifestFile) -> str:
    """Return the key of a listed file if it is a text that can name an object.

    Raises ManifestInvalid for anything else, such as a path with `..` or a control character.
    """
    if not isinstance(key, str) or not key:
        raise ManifestInvalid(
            f"{source.location} lists {excerpt(key)}, which is not the key of a file; "
            f"{UNREADABLE_ADVICE}"
        )
    # No vendor writes control characters, and S3 itself cannot list them.
    if CONTROL_CHARACTER.search(key) or {".", ".."} & set(key.split("/")):
        raise ManifestInvalid(
            f"{source.location} lists {excerpt(key)}, which has a control character, or . or .. in "
            f"its path; {UNREADABLE_ADVICE}"
        )
    return key
