"""The ways in which alerts are sent, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.command import Command
from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.alerts.smtp import MailServer
from finops_dagster.alerts.webhook import Webhook


class Way(Protocol):
    """A way to send alerts."""

    def send(self, alert: Alert) -> str:
        """Send an alert, and return the answer in a line.

        Raises SendFailed, whose message is a line without secrets. Takes at most about ten seconds
        where nobody answers.
        """
        ...


def ways_of(settings: AlertSettings) -> Mapping[str, Way]:
    """Return the ways by their names in the settings; reads no secret and connects to nothing."""
    ways: dict[str, Way] = {}
    if settings.webhook_env:
        ways["webhook"] = Webhook(settings.webhook_env, settings.webhook_form)
    if settings.smtp:
        ways["smtp"] = MailServer(settings.smtp)
    if settings.command:
        ways["command"] = Command(settings.command)
    return ways
