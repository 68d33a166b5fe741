"""The channels through which alerts are sent, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.command import Command
from finops_dagster.alerts.settings import AlertSettings
from finops_dagster.alerts.smtp import MailServer
from finops_dagster.alerts.webhook import Webhook


class Channel(Protocol):
    """A channel for alerts."""

    def send(self, alert: Alert) -> str:
        """Send an alert, and return a line that says how it was received.

        Raises SendFailed if it was not sent; its message is a line without secrets. Waits at most
        ten seconds for each answer; an e-mail needs several answers, so it may take longer.
        """
        ...


def channels_of(settings: AlertSettings) -> Mapping[str, Channel]:
    """Return the channels that are set, by name: `webhook`, `smtp`, `command`.

    Reads no secrets, and does not connect.
    """
    channels: dict[str, Channel] = {}
    if settings.webhook_env:
        channels["webhook"] = Webhook(settings.webhook_env, settings.webhook_form)
    if settings.smtp:
        channels["smtp"] = MailServer(settings.smtp)
    if settings.command:
        channels["command"] = Command(settings.command, settings.secret_variables)
    return channels
