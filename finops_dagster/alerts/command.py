"""Alerts by a program, which gets the text on its standard input."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.send import SECONDS, SendFailed


@dataclass(frozen=True)
class Command:
    """A channel that runs a program, without a shell; `arguments` begin with its name.

    The program gets the environment without the variables named in `secrets`, which have the
    secrets of other channels.
    """

    arguments: Sequence[str]
    secrets: Collection[str] = ()

    def send(self, alert: Alert) -> str:
        """Run the program with the alert's text on its standard input; see `Channel`.

        Its output is discarded. Raises SendFailed if it cannot be started, ends with another exit
        code than 0, or runs longer than ten seconds; then it is killed.
        """
        program = self.arguments[0]
        environment = {k: value for k, value in os.environ.items() if k not in self.secrets}
        try:
            ended = subprocess.run(
                self.arguments,
                input=alert.text.encode(),
                env=environment,
                timeout=SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise SendFailed(
                f"{program} did not end within {SECONDS} s, and was killed; run it yourself "
                "with a text on standard input to see why"
            ) from None
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise SendFailed(
                f"{program} cannot be started: {reason}; check alerts.command"
            ) from None
        if ended.returncode:
            raise SendFailed(
                f"{program} ended with exit code {ended.returncode}; its output is discarded: "
                "run it yourself with a text on standard input to see why"
            )
        return f"{program} ended with exit code 0"
