"""The settings `[alerts]`: the channels through which alerts are sent, and their thresholds."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from finops_dagster.billing.errors import excerpt
from finops_dagster.settings_table import SettingsTable, is_loopback

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_ADDRESS = re.compile(r"[^@\s<>,;:\"]+@[^@\s<>,;:\"]+")


def _checked_variable(name: str) -> str:
    # The value is not shown: it may be the secret itself, if somebody misunderstands the key.
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "must be the name of an environment variable, in capital letters; the secret belongs "
            "in that variable, and not in this file"
        )
    return name


def _checked_address(address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{excerpt(address)} is not an e-mail address; write name@example.com")
    return address


VariableName = Annotated[str, AfterValidator(_checked_variable)]
"""The name of an environment variable that has a secret."""
Address = Annotated[str, AfterValidator(_checked_address)]
"""An e-mail address without a display name."""


class SmtpSettings(SettingsTable):
    """The mail server, the sender and the receivers of alerts by e-mail.

    The password is in the environment variable `password_env`. With `security = "none"`, a password
    is allowed only if the server is this machine.
    """

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_env: VariableName | None = None
    sender: Address = Field(alias="from")
    to: Annotated[tuple[Address, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.user is None) != (self.password_env is None):
            raise ValueError("user and password_env belong together; set both or neither")
        if self.user and self.security == "none" and not is_loopback(self.host):
            raise ValueError(
                'a password must not be sent without encryption; set security to "starttls" or '
                '"tls", or remove user and password_env'
            )
        return self


class AlertSettings(SettingsTable):
    """The channels through which alerts are sent, at least one, and the thresholds of alerts.

    The URL of the webhook is in the environment variable `webhook_env`; `webhook_form` names the
    product whose JSON is posted. `command` is a program and its arguments; it gets the text on its
    standard input.

    The alert of a failed month is sent once its runs have failed for `failed_minutes`, and none
    succeeded. That of a restatement is sent if it changes the cost in a currency by at least
    `restatement_percent` of the cost before, and by at least `restatement_amount` of that currency,
    and if the month was final, or over for `settled_days`. An export is silent if its newest
    version is older than `silent_days`; an export may have `silent_days` of its own.
    """

    webhook_env: VariableName | None = None
    webhook_form: Literal["slack", "teams"] = "slack"
    smtp: SmtpSettings | None = None
    command: tuple[str, ...] = ()
    failed_minutes: int = Field(default=20, ge=0)
    restatement_percent: float = Field(default=1.0, ge=0)
    restatement_amount: float = Field(default=1.0, ge=0)
    settled_days: int = Field(default=15, ge=0)
    silent_days: PositiveInt = 3

    @property
    def secret_variables(self) -> frozenset[str]:
        """The names of the environment variables in which this table's secrets are."""
        names = self.webhook_env, self.smtp and self.smtp.password_env
        return frozenset(name for name in names if name)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if not (self.webhook_env or self.smtp or self.command):
            raise ValueError(
                "there is no channel for alerts; set webhook_env, command, or a table smtp"
            )
        return self
