"""S3: transient errors are tried again, and permanent ones are reported in one line."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from urllib3 import HTTPResponse

from finops_dagster.cli.errors import error_line
from finops_dagster.object_stores import (
    ObjectMissing,
    ObjectStore,
    StoreError,
    StoreUnavailable,
    open_store,
)
from finops_dagster.object_stores.s3_errors import s3_error
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.pipeline import stage
from finops_dagster_tests.cur import Put
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.s3 import S3Server


@pytest.fixture
def store(project: Project, put_in_bucket: Put) -> ObjectStore:
    return project.first_store()[0]


def answer_once(s3: S3Server, method: str, body: bytes, status="200 OK", length=0, path="") -> None:
    """Answer the next request of the method with this body, and a wrong `length` if given."""

    def fault(environ, start_response):
        if environ["REQUEST_METHOD"] != method or not environ["PATH_INFO"].endswith(path):
            return None
        s3.fault = None
        headers = [("ETag", '"x"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")]
        start_response(status, [("Content-Length", str(length or len(body))), *headers])
        return [body]

    s3.fault = fault


SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


def test_a_busy_store_is_tried_again(project: Project, put_in_bucket: Put, s3: S3Server) -> None:
    project.deliver("1")
    answer_once(s3, "GET", SLOW_DOWN, "503 Slow Down")
    assert project.materialize().success


def test_a_body_that_is_cut_short_is_fetched_again(
    project: Project, put_in_bucket: Put, s3: S3Server
) -> None:
    (key,) = project.deliver(*map(str, range(100)))
    body = s3.client().get_object(Bucket=project.export["source"][5:], Key=key)["Body"].read()
    s3.requests.clear()
    answer_once(s3, "GET", body[:-20], length=len(body), path=key)
    outcome = project.materialize()
    assert outcome.success, outcome.error
    assert sum(method == "GET" and path.endswith(key) for method, path in s3.requests) == 2
    assert project.totals() == (100, sum(range(100)))


def test_the_run_tries_again_after_a_network_error(
    project: Project, put_in_bucket: Put, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_RETRIES", 0)
    project.deliver("1")
    answer_once(s3, "GET", b"{", length=1000)
    outcome = project.materialize()
    assert outcome.success, outcome.error
    assert outcome.retries() == 1


def test_a_permanent_error_is_not_tried_again(project: Project, put_in_bucket: Put) -> None:
    outcome = project.materialize()
    assert "no manifest of 2024-01" in outcome.error
    assert outcome.retries() == 0


def test_a_missing_bucket_is_named(project: Project, put_in_bucket: Put) -> None:
    project.export["source"] = "s3://acme-billing-of-nobody/cur"
    error = project.materialize().error
    assert error.startswith("s3://acme-billing-of-nobody/cur/acme-cur/20240101-20240201/")
    assert error.endswith("the bucket does not exist: check the source")


def refuse(s3: S3Server, status: str, code: str, message: str, more: str = "") -> None:
    """Refuse every request as S3 does: GET with a reason, HEAD without one.

    Without `code`, GET has no reason either.
    """
    message = message.replace("'", "&apos;")
    body = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>".encode()
    if not code:
        body = b""

    def fault(environ, start_response):
        if environ["REQUEST_METHOD"] == "HEAD" and environ["PATH_INFO"].count("/") == 1:
            return None  # botocore looks up the bucket's region by this request
        start_response(f"{status} Refused", [("Content-Length", str(len(body)))])
        return [body if environ["REQUEST_METHOD"] == "GET" else b""]

    s3.fault = fault


USER = "User: arn:aws:sts::123456789012:assumed-role/etl/x is not authorized to perform:"
# The answer of S3, and the advice in the error that it becomes.
REFUSALS = (
    f"""
403 AccessDenied: Access Denied
the credentials need s3:GetObject on the object and s3:ListBucket on the bucket, and the policy \
of a bucket in another account must allow both too; where the requester pays, set \
requester_pays = true
403 AccessDenied: {USER} s3:GetObject on resource: x because no identity-based policy allows it
change that policy to allow it
403 AccessDenied: {USER} s3:GetObject with an explicit deny in a service control policy
a deny overrides every policy that allows
403 AccessDenied: {USER} s3:GetObject because no VPC endpoint policy allows the action
change that policy to allow it
403 AccessDenied: {USER} kms:Decrypt on resource: arn:aws:kms:eu-west-1:123456789012:key/1 because
the reader needs kms:Decrypt on it, in its own policy and in the key's
403 AccessDenied: {USER} s3:GetObject on arn:aws:s3:::kms-logs/x with an explicit deny
a deny overrides every policy that allows
403 AccessDenied: The ciphertext refers to a customer master key that you may not access.
the reader needs kms:Decrypt on it
400 KMS.DisabledException: arn:aws:kms:x is disabled.
the file is encrypted with a KMS key
400 InvalidRequest: The object was stored using a form of Server Side Encryption.
a key that S3 does not have (SSE-C): let the export write with another encryption
403 InvalidObjectState: The operation is not valid for the object's storage class
a lifecycle rule has archived the file: restore it
403 AccessDenied: Bucket is a requester pays bucket
the requester pays for this bucket: set requester_pays = true
403 AllAccessDisabled: All access to this object has been disabled
AWS has disabled the bucket
403 InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records.
the access key was deleted, or belongs to another AWS partition or store
403 SignatureDoesNotMatch: The request signature we calculated does not match yours.
the secret key does not belong to the access key
400 ExpiredToken: The provided token has expired.
the credentials have expired: renew them
403 RequestTimeTooSkewed: The difference is too large.
this machine's clock is wrong: set it
404 NoSuchAccessPoint: The specified accesspoint does not exist
the access point does not exist: check the source
404 NoSuchBucket: The specified bucket does not exist
the bucket does not exist: check the source
400 AuthorizationHeaderMalformed: the region 'us-east-1' is wrong; expecting 'eu-west-3'
the bucket is in eu-west-3: set region = "eu-west-3"
400 IllegalLocationConstraintException: eu-west-3 is incompatible.
the bucket is in another region: set region to the bucket's
""".replace("\\\n", "")
    .strip()
    .split("\n")
)


WRITE_REFUSALS = {
    "403 AccessDenied: Access Denied": "the credentials need s3:PutObject on the object",
    f"403 AccessDenied: {USER} kms:GenerateDataKey on resource: x because": "the writer needs kms",
    "501 NotImplemented: A header you provided implies functionality": "use another store",
    "400 BadDigest: The CRC32 you specified did not match": "the bytes were damaged on the way",
}


@pytest.mark.parametrize(("refusal", "advice"), WRITE_REFUSALS.items())
def test_a_refused_write_names_what_is_missing(
    s3: S3Server, bucket: str, refusal: str, advice: str
) -> None:
    status, _, reason = refusal.partition(" ")
    code, _, message = reason.partition(": ")
    store, _ = open_store(StoreSettings(source=f"s3://{bucket}", endpoint_url=s3.url))
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    def fault(environ, start_response):
        start_response(f"{status} Refused", [("Content-Length", str(len(body)))])
        return [body]

    s3.fault = fault
    with pytest.raises(StoreError) as caught:
        store.replace_if_unchanged("key", b"", etag=None)
    assert f"s3://{bucket}/key: S3 refuses ({code}: {message}); " in str(caught.value)
    assert advice in str(caught.value)
    if status == "403":
        with pytest.raises(StoreError, match=r"s3:DeleteObject|kms"):
            store.delete("key")


def test_a_write_whose_answer_was_lost_succeeds(s3: S3Server, bucket: str) -> None:
    store, _ = open_store(StoreSettings(source=f"s3://{bucket}", endpoint_url=s3.url))

    def fault(environ, start_response):
        s3.fault = None
        list(s3.serve(environ, lambda *_: None))
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]

    s3.fault = fault
    etag = store.replace_if_unchanged("key", b"one", etag=None)
    assert store.read("key") == (b"one", store.head("key"))
    assert store.head("key").etag == etag


def test_queries_have_the_credentials_of_the_role(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.client().put_object(Bucket=bucket, Key="key", Body=b"one")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    role = "arn:aws:iam::123456789012:role/etl"
    settings = StoreSettings(
        source=f"s3://{bucket}", endpoint_url=s3.url, role_arn=role, region="eu-west-1"
    )
    filesystem, root = open_store(settings)[0].filesystem()
    assert filesystem.open_input_file(f"{root}/key").read() == b"one"
    assert filesystem.region == "eu-west-1"
    assert ("POST", "/") in s3.requests  # AssumeRole


@pytest.mark.parametrize(("refusal", "advice"), [*zip(REFUSALS[::2], REFUSALS[1::2], strict=True)])
def test_a_refusal_has_the_message_of_s3_and_advice(
    store: ObjectStore, s3: S3Server, refusal: str, advice: str
) -> None:
    status, _, reason = refusal.partition(" ")
    code, _, message = reason.partition(": ")
    refuse(s3, status, code, message)
    looks = [store.read, store.folder_names, store.files]
    for look in looks if status == "404" else [*looks, store.head]:
        with pytest.raises(StoreError) as caught:
            look("key")
        assert f": S3 refuses ({reason.rstrip('.')}); " in str(caught.value)
        assert advice in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("400", "most often the credentials have expired, or the region is not"),
        ("403", "the credentials need s3:GetObject on the object and s3:ListBucket on the bucket"),
        ("301", "the bucket is in another region: set region to the bucket's"),
    ],
)
def test_a_refusal_without_a_message_still_has_advice(
    store: ObjectStore, s3: S3Server, status: str, advice: str
) -> None:
    refuse(s3, status, "", "")
    with pytest.raises(StoreError) as caught:
        store.head("key")
    assert f": S3 refuses ({status}" in str(caught.value)
    assert advice in str(caught.value)


def test_a_redirected_bucket_is_named_with_its_region(store: ObjectStore, s3: S3Server) -> None:
    region = "<Region>eu-west-3</Region>"
    refuse(s3, "301", "PermanentRedirect", "Use the endpoint.", region)
    for look in (store.read, store.head):
        with pytest.raises(StoreError, match='in eu-west-3: set region = "eu-west-3"'):
            look("key")


def error_of_answer(status: int, code: str, operation: str, message: str = "") -> Exception:
    """Return the error that an answer of S3 or STS becomes."""
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return s3_error(ClientError(answer, operation), "s3://b/key", requester_pays=False)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ExpiredToken", "the credentials have expired: renew them"),
        ("InvalidClientTokenId", "the access key was deleted"),
        ("AccessDenied", "the credentials need sts:AssumeRole on role_arn"),
    ],
)
def test_a_refusal_by_sts_says_what_is_wrong_with_the_credentials_or_the_role(
    code: str, advice: str
) -> None:
    error = error_of_answer(403, code, "AssumeRole")
    assert str(error).startswith(f"s3://b/key: STS refuses ({code}); {advice}")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "Throttling"), (400, "RequestTimeout"), (503, "SlowDown"), (500, "")]
)
def test_a_throttled_request_is_a_transient_error(status: int, code: str) -> None:
    error = error_of_answer(status, code, "GetObject", "Rate exceeded.")
    assert isinstance(error, StoreUnavailable)
    message = f"s3://b/key: S3 refuses ({code or status}: Rate exceeded); S3 may be busy"
    assert str(error) == message
    assert error_line(error) == f"{message}; run the same command again later"


def test_a_long_message_is_shortened_and_has_no_signature(store: ObjectStore, s3: S3Server) -> None:
    secret = "Signature=abc123, X-Amz-Security-Token: tok456"
    refuse(s3, "403", "AccessDenied", f"{secret}\n{'x' * 5000}\u202e[1m")
    with pytest.raises(StoreError) as caught:
        store.read("key")
    message = str(caught.value)
    assert len(message) < 1000
    assert "Signature=***" in message
    assert not any(word in message for word in ("abc123", "tok456", "\n", "\u202e"))


def test_a_refused_role_is_reported_as_an_error_of_sts_and_not_of_the_bucket(
    project: Project, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    body = (
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>User: x is not authorized to "
        b"perform: sts:AssumeRole</Message></Error></ErrorResponse>"
    )
    answer_once(s3, "POST", body, "403 Forbidden")
    project.export |= {
        "source": f"s3://{bucket}",
        "endpoint_url": s3.url,
        "role_arn": "arn:aws:iam::123456789012:role/reader",
    }
    store, _ = project.first_store()
    with pytest.raises(StoreError, match=r"no AWS region is set; set region in the settings"):
        store.head("key")
    project.export["region"] = "us-east-1"
    store, _ = project.first_store()
    with pytest.raises(StoreError) as caught:
        store.head("key")
    assert "STS refuses (AccessDenied: User: x is not authorized to perform: " in str(caught.value)
    assert str(caught.value).endswith(
        "the credentials need sts:AssumeRole on role_arn, and the role's trust policy must name "
        "them and agree with external_id"
    )


@pytest.mark.parametrize("pays", [True, False])
def test_requester_pays_is_sent_with_every_request(
    project: Project, put_in_bucket: Put, s3: S3Server, pays: bool
) -> None:
    put_in_bucket("key", b"body")
    project.export["requester_pays"] = pays
    store, _ = project.first_store()
    sent: list[tuple[str, str | None]] = []

    def look(environ, start_response):
        sent.append((environ["REQUEST_METHOD"], environ.get("HTTP_X_AMZ_REQUEST_PAYER")))

    s3.fault = look
    store.folder_names("")
    assert b"".join(store.read_chunks(store.head("key"))) == store.read("key")[0] == b"body"
    payer = "requester" if pays else None
    assert sent == [("GET", payer), ("HEAD", payer), ("GET", payer), ("GET", payer)]
    s3.fault = None
    refuse(s3, "403", "AccessDenied", "Access Denied")
    with pytest.raises(StoreError) as caught:
        store.head("key")
    assert ("requester_pays" in str(caught.value)) is not pays


ACCOUNT = "eu-west-1:123456789012"
ACCESS_POINTS = {
    f"arn:aws:s3:{ACCOUNT}:accesspoint/bills": "bills-123456789012.s3-accesspoint.eu-west-1",
    f"arn:aws:s3:{ACCOUNT}:accesspoint:bills": "bills-123456789012.s3-accesspoint.eu-west-1",
    f"arn:aws:s3-outposts:{ACCOUNT}:outpost/op-1/accesspoint/bills": (
        "bills-123456789012.op-1.s3-outposts.eu-west-1"
    ),
    "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/bills": (
        "bills-123456789012.s3-accesspoint.us-gov-west-1"
    ),
    "bills-x1y2-s3alias": "bills-x1y2-s3alias.s3",
}


@pytest.mark.parametrize(("bucket", "host"), ACCESS_POINTS.items())
@pytest.mark.parametrize("prefix", ["", "/a/b", "/accesspoint/x"])
def test_an_access_point_is_called_at_its_own_host(
    project: Project,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    bucket: str,
    host: str,
    prefix: str,
) -> None:
    project.export["source"] = f"s3://{bucket}{prefix}/"
    called = []

    def answer(self, request):
        called.append(request.url)
        return AWSResponse(request.url, 404, {}, HTTPResponse(io.BytesIO()))

    monkeypatch.setattr(URLLib3Session, "send", answer)
    store, store_prefix = project.first_store()
    assert f"/{store_prefix}".rstrip("/") == prefix
    with pytest.raises(ObjectMissing) as caught:
        store.head("a/key")
    assert str(caught.value).startswith(f"s3://{bucket}/a/key: ")
    assert [url.replace(".amazonaws.com", "") for url in called] == [f"https://{host}/a/key"]


def test_a_multi_region_access_point_names_the_package_that_it_needs(
    project: Project, s3: S3Server
) -> None:
    if find_spec("awscrt"):
        pytest.skip("botocore[crt] is installed")
    project.export["source"] = "s3://arn:aws:s3::123456789012:accesspoint/x1y2z3.mrap/cur"
    store, prefix = project.first_store()
    assert prefix == "cur"
    with pytest.raises(StoreError, match=r"another package: pip install 'botocore\[crt\]'"):
        store.head("key")


@pytest.mark.parametrize("bucket", ["arn:aws:s3:::acme", "arn:aws:s3:::acme/cur", "arn:x"])
def test_an_arn_that_is_not_of_an_access_point_is_refused(project: Project, bucket: str) -> None:
    project.export["source"] = f"s3://{bucket}"
    with pytest.raises(
        ValueError, match="is not the ARN of an access point; write a bucket as s3://"
    ):
        project.settings()


def test_missing_credentials_are_reported_in_one_line(
    project: Project, put_in_bucket: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(project.folder))
    error = project.materialize().error
    assert "no AWS credentials were found" in error


def test_an_unreachable_store_is_a_transient_error(
    project: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.export |= {"source": "s3://bucket", "endpoint_url": "http://127.0.0.1:1"}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store, _ = project.first_store()
    with pytest.raises(StoreUnavailable, match="s3://bucket/key: "):
        store.head("key")


def test_a_role_is_assumed_and_its_credentials_are_renewed(
    project: Project, put_in_bucket: Put, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.url)
    project.export |= {
        "role_arn": "arn:aws:iam::123456789012:role/finops-read",
        "external_id": "acme-finops",
        "region": "us-east-1",
    }
    put_in_bucket("key", b"body")
    assumed, signed = [], []

    def grant(environ, start_response):
        if environ["REQUEST_METHOD"] != "POST":
            signed.append(re.search(r"Credential=(\w+)/", environ["HTTP_AUTHORIZATION"])[1])
            return None
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        assumed.append(parse_qs(body.decode()))
        # The first expire in ten minutes, which is when botocore must have others.
        ends = datetime.now(UTC) + timedelta(minutes=9 if len(assumed) == 1 else 60)
        answer = ASSUMED_ROLE.format(
            number=len(assumed), ends=f"{ends:%Y-%m-%dT%H:%M:%SZ}"
        ).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    s3.fault = grant
    store, _ = project.first_store()
    for _ in range(3):
        assert store.head("key").size == 4
    assert signed == ["ROLE1", "ROLE2", "ROLE2"]
    for request in assumed:
        assert request["Action"] == ["AssumeRole"]
        assert request["RoleArn"] == ["arn:aws:iam::123456789012:role/finops-read"]
        assert request["ExternalId"] == ["acme-finops"]


ASSUMED_ROLE = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleResult><Credentials><AccessKeyId>ROLE{number}</AccessKeyId>
<SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>{ends}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
