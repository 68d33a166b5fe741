"""Alerts that are to be sent, and what is left of them after a try."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.channels import Channel
from finops_dagster.alerts.send import SendFailed

# A tick that takes a minute is discarded by Dagster, with all that it would have remembered.
_SECONDS = 30


@dataclass
class Unsent:
    """An alert, and the names of the channels that have not taken it. It is stored as JSON."""

    alert: Alert
    pending_channels: list[str]


def send(
    unsent: Sequence[Unsent], channels: Mapping[str, Channel]
) -> tuple[list[Unsent], list[str]]:
    """Send alerts; return what a channel has not taken, and a line for each channel that failed.

    A channel that failed is not tried again, and none is tried after 30 seconds. Channels
    that are no longer in `channels` are forgotten.
    """
    problems: dict[str, str] = {}
    end, waiting = time.monotonic() + _SECONDS, list[Unsent]()
    for item in unsent:
        left = []
        for name in (name for name in item.pending_channels if name in channels):
            if name in problems or time.monotonic() > end:
                left.append(name)
                continue
            try:
                channels[name].send(item.alert)
            except SendFailed as error:
                problems[name] = f"{name}: {error}"
                left.append(name)
        if left:
            waiting.append(Unsent(item.alert, left))
    return waiting, [*problems.values()]
