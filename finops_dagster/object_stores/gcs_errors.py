"""Messages for errors of Google Cloud Storage: Google's reason and message, then what to do."""

from __future__ import annotations

import re
from reprlib import Repr

from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from google.cloud.storage.exceptions import DataCorruption

from finops_dagster.object_stores import ObjectChanged, ObjectMissing, StoreError, StoreUnavailable

_NO_CREDENTIALS = (
    "no Google credentials were found: run gcloud auth application-default login, give this "
    "machine a service account, or set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file"
)
# The patterns are searched, in order, in the lower-case text `status: message`; the first match
# gives the advice. Google names the right that is missing.
_ADVICE = {
    "cloud ?kms|kms key|cryptokey": "the bucket encrypts with a Cloud KMS key: enable the key, and "
    "give the bucket's service agent the role Cloud KMS CryptoKey Encrypter/Decrypter on it",
    "requester pays|user project": "the requester pays for this bucket, which finops_dagster "
    "cannot: copy it to a bucket of your own",
    "organization's policy|vpcservicecontrols": "a service perimeter keeps this machine out: ask "
    "the administrator of the organization to let it in",
    "billing account|account.*disabled": "the billing account of the bucket's project is disabled: "
    "ask its owner to enable it",
    "retention|holds?\\b": "a hold or a retention policy of the bucket forbids replacing or "
    "deleting the object: use a bucket without one",
    r"storage\.(objects\.(get|list)|buckets\.get)": "the credentials need the role Storage Object "
    "Viewer on the bucket (docs/exports.md, Which rights does it need?)",
    r"storage\.objects\.(create|delete|update)": "the credentials need storage.objects.create and "
    "storage.objects.delete on the bucket, which the role Storage Object User has",
    "^404: .*bucket": "the bucket does not exist: check the source",
    "^400: .*(checksum|crc32c|md5|hash)": "the bytes were damaged on the way to the store: try "
    "again, and look for a proxy that changes them",
    "^401": "the credentials have expired or were deleted: run gcloud auth application-default "
    "login, or set others",
    "^403": "the credentials need the role Storage Object Viewer on the bucket to read it, and "
    "Storage Object User to write it",
}
_CHECK_SETTINGS = "check the bucket's address and the Google credentials of this machine"
_TRANSIENT = (408, 429)
_SHORT_REPR = Repr()
_SHORT_REPR.maxstring = 600


def gcs_error(error: Exception, location: str) -> Exception:
    """Return the store error to raise for an error of Google's client, with advice.

    It is StoreUnavailable, ObjectMissing, ObjectChanged or StoreError. Its text begins with
    `location`.
    """
    if isinstance(error, RetryError) and error.cause:
        error = error.cause
    if isinstance(error, DefaultCredentialsError):
        return StoreError(f"{location}: {_NO_CREDENTIALS}")
    if isinstance(error, RefreshError) and not error.retryable:
        return StoreError(
            f"{location}: Google refuses the credentials ({_short(str(error.args[0]))}); run "
            "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to the "
            "path of another key file"
        )
    if isinstance(error, DataCorruption):
        return StoreError(
            f"{location} was damaged while it was uploaded: {_short(str(error))}; try again"
        )
    if not isinstance(error, GoogleAPICallError) or isinstance(error, GoogleAuthError):
        return StoreUnavailable(f"{location}: {_short(str(error))}; check the network")
    status, message = int(error.code or 0), _message(error)
    if status == 404 and "bucket does not exist" not in message:
        return ObjectMissing(f"{location}: there is no such object")
    if status == 412:
        return ObjectChanged(f"{location} changed while it was read; run the month again")
    line = f"{location}: Google refuses ({status}{message and f': {message}'})"
    if status >= 500 or status in _TRANSIENT:
        return StoreUnavailable(f"{line}; Google may be busy")
    text = f"{status}: {message}".lower()
    matches = (advice for pattern, advice in _ADVICE.items() if re.search(pattern, text))
    advice = next(matches, _CHECK_SETTINGS)
    return StoreError(f"{line}; {advice}")


def _message(error: GoogleAPICallError) -> str:
    """Return Google's message in one short line, without the URL that the client adds."""
    try:
        return _short(error.response.json()["error"]["message"])
    except (AttributeError, KeyError, TypeError, ValueError):
        text = getattr(error.response, "text", "") or error.message
        return _short(text)


def _short(text: str) -> str:
    return _SHORT_REPR.repr(" ".join(text.split()).rstrip("."))[1:-1]
