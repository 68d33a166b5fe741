"""Each channel sends an alert as it is, says in a line why it cannot, and shows no secret."""

import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.channels import Channel, channels_of
from finops_dagster.alerts.command import Command
from finops_dagster.alerts.send import SendFailed
from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.alerts.smtp import MailServer
from finops_dagster.alerts.unsent import UnsentAlert, send_alerts, split_dropped
from finops_dagster.alerts.webhook import Webhook
from finops_dagster_tests.servers.webhook import WebhookServer

ALERT = Alert.of("key", "acme 2026-01 failed", ["Reason: <!channel> *costs* & más"], "finops -h")


def problem(channel: Channel) -> str:
    """Return why a channel does not take an alert, and assert that no secret is in the error."""
    with pytest.raises(SendFailed) as caught:
        channel.send(ALERT)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or error.__context__
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_slack_shows_the_text_as_it_is(webhook: WebhookServer) -> None:
    assert Webhook("ALERT_WEBHOOK", "slack").send(ALERT) == "the server answered 200"
    (document,) = webhook.documents
    assert document["mrkdwn"] is False
    assert "&lt;!channel&gt; *costs* &amp; más" in document["text"]
    assert document["text"].endswith("To look further: finops -h")


def test_teams_gets_a_card_whose_texts_are_no_markdown(webhook: WebhookServer) -> None:
    Webhook("ALERT_WEBHOOK", "teams").send(ALERT)
    (document,) = webhook.documents
    (attachment,) = document["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    runs = [block["inlines"][0] for block in attachment["content"]["body"]]
    assert [run["text"] for run in runs] == [ALERT.title, *ALERT.lines, ALERT.command]
    assert {run["type"] for run in runs} == {"TextRun"}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "a redirect, which is refused"),
        (404, "check that the webhook still exists"),
        (429, "which may pass"),
        (500, "which may pass"),
        (0, "no answer within"),
    ],
)
def test_a_webhook_that_does_not_take_an_alert(
    webhook: WebhookServer, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finops_dagster.alerts.webhook.SECONDS", 0.3)
    webhook.statuses = [status]
    assert words in problem(Webhook("ALERT_WEBHOOK", "slack"))
    assert webhook.paths == ["/services/hunter2"], "no redirect was followed"
    assert webhook.documents == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "ALERT_WEBHOOK is not set"),
        ("hunter2", "ALERT_WEBHOOK has no https:// URL"),
        ("http://example.com/hunter2", "ALERT_WEBHOOK has no https:// URL"),
        ("file:///hunter2", "ALERT_WEBHOOK has no https:// URL"),
        ("https://[hunter2", "ALERT_WEBHOOK has no https:// URL"),
        ("http://127.0.0.1:99999/hunter2", "ALERT_WEBHOOK has no https:// URL"),
        ("http://127.0.0.1:1/ hunter2", "the URL is not valid; check the URL"),
        ("http://127.0.0.1:1/hunter2é", "the URL is not valid; check the URL"),
        ("http://127.0.0.1:1/hunter2", "connection refused"),
    ],
)
def test_a_url_that_cannot_be_called(url: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK", url)
    assert words in problem(Webhook("ALERT_WEBHOOK", "slack"))


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1 and its key, and return their paths."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail of the tests")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(host, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Mailbox:
    """The mails that an SMTP server took; it refuses receivers whose name begins with `no`."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address.startswith("no"):
            return "550 hunter2 has no such box"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        self.mails.append(envelope)
        return "250 OK"


def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, login: Any) -> Any:
    is_right = (login.login, login.password) == (b"finops", b"hunter2")
    return AuthResult(success=is_right, handled=False)


@pytest.fixture
def mail_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Controller, Mailbox]]:
    """Start an SMTP server that wants STARTTLS and a login, and trust its certificate."""
    paths, mailbox = certificate(tmp_path), Mailbox()
    tls = SSLContext(PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*paths)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        tls_context=tls,
        require_starttls=True,
        auth_required=True,
        authenticator=authenticate,
        enable_SMTPUTF8=False,
    )
    controller.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(paths[0]))
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    yield controller, mailbox
    controller.stop()


def mail_channel(controller: Controller, **changes: Any) -> MailServer:
    table = {
        "host": "127.0.0.1",
        "port": controller.port,
        "user": "finops",
        "password_env": "MAIL_PASSWORD",
        "from": "finops@acme.example",
        "to": ["fin@acme.example"],
        **changes,
    }
    settings = AlertSettings.model_validate({"smtp": table}).smtp
    assert settings is not None
    return MailServer(settings)


def test_a_mail_is_sent_encrypted_and_with_a_login(
    mail_server: tuple[Controller, Mailbox],
) -> None:
    controller, mailbox = mail_server
    channel = mail_channel(controller, to=["fin@acme.example", "no-one@acme.example"])
    place = f"127.0.0.1:{controller.port}"
    assert channel.send(ALERT) == f"{place} took the mail; it refused no-one@acme.example"
    channel.send(ALERT)
    first, again = mailbox.mails
    assert first.rcpt_tos == ["fin@acme.example"]
    content = (first.content or b"").decode() if isinstance(first.content, bytes) else ""
    assert "Subject: acme 2026-01 failed" in content
    assert "<!channel> *costs* & m=C3=A1s" in content
    message_id = f"Message-ID: <{ALERT.digest}@acme.example>"
    assert message_id in content
    assert message_id in str(again.content), "a mail program knows a mail that is sent again"


def test_mails_that_are_not_sent(
    mail_server: tuple[Controller, Mailbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, mailbox = mail_server
    assert "no SMTPUTF8" in problem(mail_channel(controller, to=["jörg@acme.example"]))
    assert "a character that cannot be sent" in problem(mail_channel(controller, host="a..b"))
    assert "refuses every receiver" in problem(mail_channel(controller, to=["no@acme.example"]))
    plain = mail_channel(controller, security="none", user=None, password_env=None)
    assert "refuses the sender (530)" in problem(plain)
    assert "no encrypted connection" in problem(mail_channel(controller, security="tls"))
    assert "connection refused" in problem(mail_channel(controller, port=1))
    monkeypatch.setenv("MAIL_PASSWORD", "hunter22")
    assert "refuses the login (535)" in problem(mail_channel(controller))
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2é")
    assert "a character that cannot be sent" in problem(mail_channel(controller))
    monkeypatch.delenv("MAIL_PASSWORD")
    assert "MAIL_PASSWORD is not set" in problem(mail_channel(controller))
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate is not trusted: self-signed" in problem(mail_channel(controller))
    assert mailbox.mails == []


def test_a_command_gets_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = tmp_path / "text"
    code = f"import sys; open({str(received)!r}, 'w').write(sys.stdin.read()); print('hunter2')"
    channel = Command([sys.executable, "-c", code])
    assert channel.send(ALERT) == f"{sys.executable} ended with exit code 0"
    assert received.read_text() == ALERT.text
    failing = [sys.executable, "-c", "import sys; sys.exit('hunter2')"]
    assert problem(Command(failing)).startswith(f"{sys.executable} ended with exit code 1; ")
    assert "cannot be started: no such file" in problem(Command([str(tmp_path / "none")]))
    monkeypatch.setattr("finops_dagster.alerts.command.SECONDS", 0.2)
    assert "was killed" in problem(Command(["sleep", "20"]))


def test_a_command_does_not_get_the_secrets_of_other_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK", "https://hooks.acme.example/hunter2")
    monkeypatch.setenv("OTHER", "kept")
    environment = tmp_path / "environment"
    script = ("sh", "-c", f"env > {environment}")
    channels_of(AlertSettings(webhook_env="ALERT_WEBHOOK", command=script))["command"].send(ALERT)
    assert "hunter2" not in environment.read_text()
    assert "OTHER=kept" in environment.read_text()


def test_one_channel_that_fails_neither_loses_nor_doubles_an_alert(
    webhook: WebhookServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    script = ["sh", "-c", f"head -n 1 >> {log}"]
    channels = channels_of(AlertSettings(webhook_env="ALERT_WEBHOOK", command=tuple(script)))
    alerts = [Alert.of(str(number), f"alert {number}", [], "finops -h") for number in range(3)]
    webhook.statuses = [200, 500]
    waiting, problems = send_alerts(
        [UnsentAlert(alert, [*channels]) for alert in alerts], channels, soon()
    )
    assert [(item.alert.title, item.pending_channels) for item in waiting] == [
        ("alert 1", ["webhook"]),
        ("alert 2", ["webhook"]),
    ]
    assert len(problems) == 1
    assert len(webhook.paths) == 2, "a channel that failed is not tried again in the same tick"
    assert send_alerts(waiting, channels, soon()) == ([], [])
    assert [text.partition("\n")[0] for text in webhook.texts] == ["alert 0", "alert 2", "alert 1"]
    assert log.read_text().split("\n") == ["alert 0", "alert 1", "alert 2", ""]


class Refusing:
    """A channel that refuses one alert for good, in its own way, and takes the others."""

    def __init__(self, refused: str, error: Exception) -> None:
        self.refused, self.error, self.titles = refused, error, list[str]()

    def send(self, alert: Alert) -> str:
        if alert.title == self.refused:
            raise self.error
        self.titles.append(alert.title)
        return "taken"


def soon() -> float:
    """Return a time of the clock of ticks that does not come during a test."""
    return time.monotonic() + 60


def unsent(*titles: str) -> list[UnsentAlert]:
    return [UnsentAlert(Alert.of(title, title, [], "finops -h"), ["any"]) for title in titles]


@pytest.mark.parametrize("error", [SendFailed("refused"), RuntimeError("hunter2")])
def test_an_alert_that_is_always_refused_holds_up_no_other_and_is_dropped(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finops_dagster.alerts.unsent._MOST_TRIES", 3)
    channel = Refusing("bad", error)
    waiting, problems = send_alerts(unsent("bad", "good"), {"any": channel}, soon())
    assert "hunter2" not in "".join(problems)
    assert [item.alert.title for item in waiting] == ["bad", "good"]
    for _ in range(2):
        waiting, _ = send_alerts(waiting, {"any": channel}, soon())
    assert channel.titles == ["good"]
    assert split_dropped(waiting) == (
        [],
        ["not sent in 3 tries, and dropped: bad; run finops alerts test"],
    )


def test_no_send_begins_after_the_end_and_a_slow_one_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel, late = Refusing("", ValueError()), unsent("late")
    assert send_alerts(late, {"any": channel}, time.monotonic()) == (late, [])
    assert channel.titles == []
    monkeypatch.setattr("finops_dagster.alerts.unsent._SEND_SECONDS", 0.1)
    slow = {"any": Command(["sleep", "1"])}
    waiting, problems = send_alerts(late, slow, soon())
    assert (len(waiting), problems) == (1, ["any: no answer within 0.1 s; run finops alerts test"])
