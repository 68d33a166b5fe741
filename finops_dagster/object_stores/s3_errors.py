"""Messages for errors of S3 and STS: AWS's code and message, then what to do."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Any

import botocore.exceptions as aws

from finops_dagster.object_stores import ObjectChanged, ObjectMissing, StoreError, StoreUnavailable

_TRANSIENT_CODES = set(
    "RequestLimitExceeded RequestTimeout SlowDown Throttling ThrottlingException "
    "TooManyRequestsException".split()
)
_REGION_CODES = set(
    "301 AuthorizationHeaderMalformed IllegalLocationConstraintException PermanentRedirect "
    "TemporaryRedirect".split()
)
# The patterns are searched, in order, in the lower-case text `operation status code: message`; the
# first match gives the advice. AWS has one code, AccessDenied, for many reasons, and other stores
# have other messages.
_ADVICE = {
    r"^\w*(put|upload)\w* .*(\bkms[:.]|master key)": "the bucket encrypts with a KMS key: the "
    "writer needs kms:GenerateDataKey and kms:Decrypt on it, in its own policy and in the key's",
    r"^\w+ \d+ kms|\bkms:|:kms:|master key": "the file is encrypted with a KMS key: the reader "
    "needs kms:Decrypt on it, in its own policy and in the key's",
    "server side encryption": "the file is encrypted with a key that S3 does not have (SSE-C): "
    "let the export write with another encryption",
    " (expiredtoken|expiredtokenexception|tokenrefreshrequired|invalidtoken):": "the credentials "
    "have expired: renew them, such as by aws sso login",
    " allaccessdisabled:": "AWS has disabled the bucket: ask its owner, or AWS support",
    " (invalidaccesskeyid|invalidclienttokenid):": "the access key was deleted, or belongs to "
    "another AWS partition or store: set another one",
    " invalidobjectstate:": "a lifecycle rule has archived the file: restore it, and exempt the "
    "export from the rule",
    r" (baddigest|xamzcontent\w+mismatch):": "the bytes were damaged on the way to the store: try "
    "again, and look for a proxy that changes them",
    " notimplemented:": "the store has no conditional writes, without which two runs can overwrite "
    "each other's month: use another store",
    " nosuchaccesspoint:": "the access point does not exist: check the source",
    " nosuchbucket:": "the bucket does not exist: check the source",
    " requesttimetooskewed:": "this machine's clock is wrong: set it",
    " signaturedoesnotmatch:": "the secret key does not belong to the access key: set both again",
    "^assumerole": "the credentials need sts:AssumeRole on role_arn, and the role's trust policy "
    "must name them and agree with external_id",
    " 403 .*requester": "the requester pays for this bucket: set requester_pays = true",
    # S3 gives the reason for a denial only to requests of the same organization.
    " 403 .*explicit deny": "a deny overrides every policy that allows: ask the "
    "owner of the policy with the deny to change it",
    " 403 .*because no": "change that policy to allow it "
    "(docs/exports.md, Which rights does it need?)",
    r"^deleteobject 403 ": "the credentials need s3:DeleteObject on the object",
    r"^\w*(put|upload)\w* 403 ": "the credentials need s3:PutObject on the object, and the policy "
    "of a bucket in another account must allow it too",
    " 403 ": "the credentials need s3:GetObject on the object and s3:ListBucket on the bucket, and "
    "the policy of a bucket in another account must allow both too; where the requester pays, set "
    "requester_pays = true",
    " 400:": "S3 gives no reason: most often the credentials have expired, or the region is not "
    "the bucket's: renew them, or set the bucket's region",
}
_CHECK_SETTINGS = (
    "check the bucket's address and the settings for AWS: profile, region, role_arn, ~/.aws, and "
    "the environment"
)
_CLIENT_ADVICE = {
    aws.NoCredentialsError: "no AWS credentials were found; set profile in the settings, or "
    "AWS_PROFILE, or both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role",
    aws.NoRegionError: "no AWS region is set; set region in the settings, or AWS_DEFAULT_REGION",
    aws.MissingDependencyException: "a multi-region access point needs another package: "
    "pip install 'botocore[crt]'",
}
_CLIENT_ADVICE[aws.PartialCredentialsError] = _CLIENT_ADVICE[aws.NoCredentialsError]
_SIGNATURE = re.compile(r"(?i)((?:signature|security-token|credential)\s*[=:]\s*)[^\s,&]+")
_SHORT_REPR = Repr()
_SHORT_REPR.maxstring = 600


def s3_error(
    error: aws.ClientError | aws.BotoCoreError, location: str, *, requester_pays: bool
) -> Exception:
    """Return the store error to raise for an error of boto3, with advice.

    It is StoreUnavailable, ObjectMissing, ObjectChanged or StoreError. Its text begins with
    `location`. If `requester_pays` is true, it does not advise to set `requester_pays`.
    """
    if not isinstance(error, aws.ClientError):
        if isinstance(error, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError):
            return StoreUnavailable(f"{location}: {error}; check the network")
        text = f"{' '.join(str(error).split()).rstrip('.')}; {_CHECK_SETTINGS}"
        return StoreError(f"{location}: {_CLIENT_ADVICE.get(type(error), text)}")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = error.response["Error"].get("Code") or str(status)
    if status == 404 and code in ("404", "NoSuchKey", "NotFound"):
        return ObjectMissing(f"{location}: there is no such object")
    if status == 412:
        return ObjectChanged(f"{location} changed while it was read; run the month again")
    message = aws_message(error)
    service = "STS" if error.operation_name.startswith("AssumeRole") else "S3"
    line = f"{location}: {service} refuses ({code}{message and f': {message}'})"
    if code != "NotImplemented" and (status >= 500 or status == 429 or code in _TRANSIENT_CODES):
        return StoreUnavailable(f"{line}; {service} may be busy")
    text = f"{error.operation_name} {status} {code}: {message}".lower()
    matches = (advice for pattern, advice in _ADVICE.items() if re.search(pattern, text))
    advice = next(matches, _CHECK_SETTINGS)
    if code in _REGION_CODES:
        advice = _region_advice(error.response)
    elif requester_pays and advice.endswith("requester_pays = true"):
        # The setting is already on, so it is not advised.
        advice = _ADVICE[" 403 "].partition("; where the requester")[0]
    return StoreError(f"{line}; {advice}")


def is_refused_condition(error: aws.ClientError) -> bool:
    """Return whether a conditional PUT failed for its condition, or for another PUT under way.

    A 404 counts too: with If-Match, it is S3's answer if there is no object.
    """
    return error.response["Error"].get("Code") in (
        "ConditionalRequestConflict",
        "NoSuchKey",
        "PreconditionFailed",
    )


def has_s3_code(error: aws.ClientError) -> bool:
    """Return whether an error has a code of S3; an error of HEAD has only the HTTP status."""
    return not (error.response["Error"].get("Code") or "0").isdigit()


def aws_message(error: aws.ClientError) -> str:
    """Return AWS's message in one line, shortened and without secrets; empty if there is none."""
    # Some stores quote the signature and the session token of the request.
    message = " ".join(str(error.response["Error"].get("Message") or "").split()).rstrip(".")
    return _SHORT_REPR.repr(_SIGNATURE.sub(r"\1***", message))[1:-1]


def _region_advice(response: Any) -> str:
    """Return the advice for a bucket in another region."""
    # S3 names the region in a header, in a field, or only in its message.
    headers = response["ResponseMetadata"].get("HTTPHeaders", {})
    error = response["Error"]
    expected = re.search(r"expecting '([a-z0-9-]+)'", error.get("Message") or "")
    region = headers.get("x-amz-bucket-region") or error.get("Region") or (expected or [""] * 2)[1]
    if region:
        return f'the bucket is in {region}: set region = "{region}"'
    return "the bucket is in another region: set region to the bucket's"
