"""Messages for errors of Azure Blob Storage and Entra ID: Azure's code and message, then advice."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Any

import azure.core.exceptions as azure

from finops_dagster.object_stores import ObjectChanged, ObjectMissing, StoreError, StoreUnavailable

_NO_CREDENTIALS = (
    "no Azure credentials were found: run az login, give this machine a managed identity, or set "
    "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET; or else set one of "
    "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN and "
    "AZURE_STORAGE_ANON=true"
)
# The patterns are searched, in order, in the lower-case text `status code: message detail`; the
# first match gives the advice. Azure has one code, AuthenticationFailed, for many reasons, and only
# the detail says which.
_ADVICE = {
    " (authorizationpermissionmismatch|insufficientaccountpermissions):": "the identity needs the "
    "role Storage Blob Data Reader on the container or the account, which Owner, Contributor and "
    "Reader do not include, and which takes up to ten minutes to have an effect; a SAS needs the "
    "permissions Read and List",
    " (authorizationresourcetypemismatch|authorizationservicemismatch):": "the SAS is of another "
    "kind: make one for the container, or for the Blob service with the resource types Container "
    "and Object",
    " authorizationsourceipmismatch:": "the SAS is only for other IP addresses: make one that "
    "includes this machine's",
    " (authorizationprotocolmismatch|accountrequireshttps):": "only https is allowed: write the "
    "source with https://",
    " keybasedauthenticationnotpermitted:": "the account does not allow access by keys: use Entra "
    "ID (unset AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN, "
    "which use a key), or allow key access in the account's Configuration",
    " publicaccessnotpermitted:": "the account does not allow anonymous access: set credentials "
    "and unset AZURE_STORAGE_ANON, or allow Blob anonymous access in the account's Configuration",
    " noauthenticationinformation:|^404 resourcenotfound:": "the container allows no anonymous "
    "access, or does not exist: set credentials and unset AZURE_STORAGE_ANON, or check the source",
    "signature not valid in the specified time frame|signed expiry|expir": "the SAS has expired, "
    "is not valid yet, or this machine's clock is wrong: make another one, or set the clock",
    "signature did not match|sr is mandatory|signature fields": "the SAS is not this account's, "
    "was cut or changed, or its key was renewed: copy it again, or make another one",
    "date header|too old|time is too": "this machine's clock is wrong: set it",
    "mac signature": "the account key is not this account's, or was renewed: set it again",
    "issuer|tenant|audience|invalidauthenticationinfo": "the credentials are of another tenant "
    "than the account: set AZURE_TENANT_ID to the tenant of its subscription, or, if you use az "
    "login, run az login --tenant with it",
    " authenticationfailed:|failed to authenticate": "the credentials are not this account's, or "
    "have expired, or this machine's clock is wrong: set the key or the SAS again, and check the "
    "clock",
    " authorizationfailure:": "the account's network rules do not let this machine in, or the "
    "container allows no anonymous access: allow this machine's network or a private endpoint in "
    "the account's Networking; if AZURE_STORAGE_ANON is set, set credentials in its place",
    " containernotfound:": "the container does not exist: check the source",
    " containerbeingdeleted:": "the container is being deleted: check the source",
    " accountisdisabled:": "the account is disabled: ask the owner of its subscription",
    " blobarchived:": "the file is in the archive tier: rehydrate it, and exempt the export from "
    "the lifecycle rule",
    "customerspecifiedencryption|keyvaultencryptionkey|encryptionscope": "the file is encrypted "
    "with a customer's key that cannot be used: enable the key, and allow the account to use it",
    "(md5|crc64)mismatch:|contentmd5 ": "the bytes were damaged on the way to the store: try "
    "again, and look for a proxy that changes them",
    r"^403 ": "the identity needs the role Storage Blob Data Reader on the container, and the "
    "account's network rules must let this machine in",
}
_CHECK_SETTINGS = "check the source and the AZURE_ variables of the environment"
_ENTRA = re.compile(r"AADSTS\d+:.*?(?=\.? (?:Trace|Correlation) ID|[\r\n]|$)")
_SIGNATURE = re.compile(r"""(?i)(sig|signature|accountkey)(=|%3d)[^\s&;'"]+""")
_SHORT_REPR = Repr()
_SHORT_REPR.maxstring = 600


def azure_error(error: azure.AzureError | ValueError, location: str) -> Exception:
    """Return the store error to raise for an error of Azure's client, with advice.

    It is StoreUnavailable, ObjectMissing, ObjectChanged or StoreError. Its text begins with
    `location`, and has no SAS or key.
    """
    if isinstance(error, ValueError):
        return StoreError(f"{location}: {_short(str(error))}; {_CHECK_SETTINGS}")
    code = getattr(error, "error_code", None) or ""
    code = str(getattr(code, "value", code))
    if isinstance(error, azure.ClientAuthenticationError) and error.response is None:
        return StoreError(f"{location}: the account key is cut short or mistyped: copy it again")
    status = getattr(error, "status_code", None)
    if not isinstance(error, azure.HttpResponseError) or status is None or status < 400:
        text = _short(str(error))
        advice = "the account's name in the source" if "resolve" in text else "the network"
        return StoreUnavailable(f"{location}: {text}; check {advice}")
    if status == 404 and code in ("", "BlobNotFound"):
        return ObjectMissing(f"{location}: there is no such object")
    if status == 412:
        return ObjectChanged(f"{location} changed while it was read; run the month again")
    # An answer to HEAD has no body; Azure sends the message as the reason phrase as well.
    message = error.message.partition("\n")[0].rstrip(".")
    message = _short((error.reason or "") if message.startswith("Operation returned") else message)
    line = f"{location}: Azure refuses ({code or status}{message and f': {message}'})"
    if status >= 500 or status in (408, 429):
        return StoreUnavailable(f"{line}; Azure may be busy")
    detail = getattr(error, "additional_info", {}).get("authenticationerrordetail") or ""
    text = f"{status} {code}: {message} {detail}".lower()
    matches = (advice for pattern, advice in _ADVICE.items() if re.search(pattern, text))
    advice = next(matches, _CHECK_SETTINGS)
    request: Any = error.response and error.response.request
    if request and request.method in ("PUT", "DELETE"):
        advice = advice.replace("Data Reader", "Data Contributor")
        advice = advice.replace("Read and List", "Read, List, Create, Write and Delete")
    return StoreError(f"{line}; {advice}")


def entra_error(error: azure.ClientAuthenticationError, location: str) -> Exception:
    """Return the store error to raise for an error of azure-identity, with advice.

    It is StoreUnavailable if Entra ID cannot be reached, else StoreError.
    """
    if refusal := _ENTRA.search(error.message):
        return StoreError(
            f"{location}: Entra ID refuses ({_short(refusal[0])}); set the credentials again, or "
            "run az login"
        )
    # The chain of credentials ends at the first that was set and failed.
    failure = error.message.rpartition("\n\t")[2].partition("\n")[0]
    if "Connection" in failure or "timed out" in failure:
        return StoreUnavailable(
            f"{location}: Entra ID cannot be reached ({_short(failure)}); check the network"
        )
    return StoreError(f"{location}: {_NO_CREDENTIALS}")


def _short(text: str) -> str:
    """Return a text of Azure in one short line, without signatures."""
    return _SHORT_REPR.repr(_SIGNATURE.sub(r"\1\2***", " ".join(text.split())))[1:-1]
