"""The table [alerts]: its mistakes in one line, its secrets in no output, and its test message."""

import json

import pytest
from pydantic import ValidationError

from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.settings_table import problems_line
from finops_dagster_tests.finops import Finops
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.webhook import WebhookServer

SMTP = {"host": "mail.acme.example", "from": "finops@acme.example", "to": ["fin@acme.example"]}
LOGIN = {"user": "finops", "password_env": "MAIL_PASSWORD"}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, "alerts: there is no channel for alerts; set webhook_env, command, or a table smtp"),
        ({"webhook_env": "https://hooks.acme.example/hunter2"}, "alerts: webhook_env: must be the"),
        ({"webhook_env": "hunter2"}, "alerts: webhook_env: must be the name of an environment"),
        ({"webhook": "https://hooks.acme.example/hunter2"}, "alerts: webhook: unknown key; set"),
        ({"command": ["page", "--token=hunter2"]}, "alerts: command[1] holds a secret; docs/sec"),
        ({"smtp": {**SMTP, "password": "hunter2"}}, "alerts: smtp.password: unknown key; docs/sec"),
        ({"smtp": {**SMTP, "to": []}}, "alerts: smtp.to: "),
        ({"smtp": {**SMTP, "from": "Finance"}}, "alerts: smtp.from: 'Finance' is not an e-mail"),
        ({"smtp": {**SMTP, "user": "finops"}}, "alerts: smtp: user and password_env belong"),
        ({"smtp": {**SMTP, **LOGIN, "security": "none"}}, "alerts: smtp: a password must not be"),
    ],
)
def test_a_mistake_is_one_line_without_the_secret(table: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AlertSettings.model_validate(table)
    line = problems_line("alerts", caught.value)
    assert line.startswith(problem)
    assert "hunter2" not in line


def test_a_test_message_goes_through_every_way(
    project: Project, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[alerts]\nwebhook_env = "ALERT_WEBHOOK"\ncommand = ["true"]\n'
    smtp = '[alerts.smtp]\nhost = "127.0.0.1"\nport = 1\nfrom = "a@b.c"\nto = ["d@e.f"]\n'
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    login = 'user = "finops"\npassword_env = "MAIL_PASSWORD"\n'
    finops = Finops(project, table + smtp + login)
    rows = {row["channel"]: row for row in json.loads(finops("alerts", "test", "--json", code=1))}
    assert rows["webhook"]["answer"] == "the server answered 200"
    assert (
        rows["smtp"]["problem"]
        == "127.0.0.1:1: connection refused; check the address and the network"
    )
    assert rows["command"]["answer"] == "true ended with exit code 0"
    assert "Test of the alerts" in webhook.texts[0]
    shown = finops("config")
    assert "ALERT_WEBHOOK" in shown
    assert "hunter2" not in shown


def test_without_ways_the_command_says_how_to_set_one(finops: Finops) -> None:
    assert "has no table [alerts]; docs/alerts.md says how" in finops("alerts", "test", code=1)
