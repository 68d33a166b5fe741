"""What S3 says when it refuses, in one line: its own code and words, then advice that fits them."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Any

from botocore.exceptions import ClientError

from finops_dagster.object_stores import (
    ObjectChanged,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
_OTHER_REGION = (
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
)
_TRANSIENT = (
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)
_NO_OBJECT = ("404", "NoSuchKey", "NotFound")
_ADVICE = {
    **dict.fromkeys(_EXPIRED, "the credentials have expired: renew them"),
    "AllAccessDisabled": "AWS itself has closed the bucket: ask its owner, or AWS support",
    **dict.fromkeys(
        ("InvalidAccessKeyId", "InvalidClientTokenId"),
        "the access key is deleted, or of another partition or store: set others",
    ),
    "InvalidObjectState": "a lifecycle rule has archived the file: restore it, and exempt the "
    "export from the rule",
    "NoSuchAccessPoint": "there is no such access point: look at the source",
    "NoSuchBucket": "there is no such bucket: look at the source",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: set both again",
}
_DENIED = (
    "it takes s3:GetObject on the object and s3:ListBucket on the bucket, and for a bucket of "
    "another account its policy must allow them too"
)
_OF_KMS = re.compile(r"\bkms:|:kms:|master key")
_SIGNED = re.compile(r"(?i)((?:signature|security-token|credential)\s*[=:]\s*)[^\s,&]+")
_SHORTENED = Repr()
_SHORTENED.maxstring = 600


def s3_error(error: ClientError, where: str, *, requester_pays: bool) -> Exception:
    """Return what to raise for an answer of S3 or STS: whether it may help to ask again, or the
    object is missing or another, and in one line why."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = error.response["Error"].get("Code") or str(status)
    if status == 404 and code in _NO_OBJECT:
        return ObjectMissing(f"{where}: there is no such object")
    if status == 412:
        return ObjectChanged(f"{where} changed while it was read; run the month again")
    words = _words(error)
    service = "STS" if _is_of_role(error) else "S3"
    line = f"{where}: {service} refuses ({code}{words and f': {words}'})"
    if status >= 500 or status == 429 or code in _TRANSIENT:
        return StoreUnavailable(f"{line}; it may be busy: run the month again later")
    advice = _advice(error, code, words.lower(), requester_pays=requester_pays)
    return StoreError(f"{line}; {advice}" if advice else line)


def has_reason(error: ClientError) -> bool:
    """Whether the answer has a code of S3's own; an answer to HEAD has a number at most."""
    return not (error.response["Error"].get("Code") or "0").isdigit()


def _is_of_role(error: ClientError) -> bool:
    return error.operation_name.startswith("AssumeRole")


def _words(error: ClientError) -> str:
    """S3's message as one short line, without what other stores repeat of the signature."""
    message = " ".join(str(error.response["Error"].get("Message") or "").split()).rstrip(".")
    return _SHORTENED.repr(_SIGNED.sub(r"\1***", message))[1:-1]


def _advice(error: ClientError, code: str, words: str, *, requester_pays: bool) -> str:
    if code in _OTHER_REGION:
        region = _region(error.response)
        if region:
            return f'the bucket is in {region}: set region = "{region}"'
        return "the bucket is in another region: set region to its own"
    if _OF_KMS.search(words) or code.startswith("KMS"):
        return (
            "the file is encrypted with a KMS key: the reader needs kms:Decrypt on it, in its own "
            "policy and in the key's"
        )
    if "server side encryption" in words:
        return "a file that is encrypted with a key of the customer's own (SSE-C) cannot be read"
    if code in _ADVICE:
        return _ADVICE[code]
    if _is_of_role(error):
        return (
            "the credentials need sts:AssumeRole on role_arn, and the role's trust policy must "
            "name them and agree with external_id"
        )
    if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
        return _denied(words, requester_pays=requester_pays)
    if code == "400":
        return (
            "an answer without a reason: most often the credentials have expired, or the region is "
            "not the bucket's"
        )
    return ""


def _denied(words: str, *, requester_pays: bool) -> str:
    """Advice for access that is denied, which S3 explains to requests of the same organization."""
    payer = "" if requester_pays else "; where the requester pays, set requester_pays = true"
    if "requester" in words and not requester_pays:
        return "the requester pays for this bucket: set requester_pays = true"
    if "explicit deny" in words:
        return "no policy that allows it overrides a deny: have the deny changed"
    if "because no" in words:
        return "have that policy allow it (docs/exports.md, What the reader may do)"
    return f"{_DENIED}{payer}"


def _region(response: Any) -> str:
    """The bucket's region, which S3 says in a header, a field or its message."""
    headers = response["ResponseMetadata"].get("HTTPHeaders", {})
    error = response["Error"]
    expected = re.search(r"expecting '([a-z0-9-]+)'", error.get("Message") or "")
    region = headers.get("x-amz-bucket-region") or error.get("Region") or ""
    return region or (expected[1] if expected else "")
