"""Sends alerts through the channels, and returns those to send again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.channels import Channel
from finops_dagster.alerts.send import SendFailed

TICK_SECONDS = 30
"""Seconds after the start of a tick in which sends may begin.

A tick that takes a minute is discarded by Dagster, with all that it would have remembered.
"""
# The time limits of a channel are for each step of a conversation, of which a mail has many.
_SEND_SECONDS = 15
# The ticks of a day: enough time to repair a channel that refuses everything.
_MOST_TRIES = 288
_MOST_UNSENT = 100


@dataclass
class UnsentAlert:
    """An alert, and the names of the channels through which it was not sent yet.

    `tries` is the number of calls of `send_alerts` in which a channel failed to send it. Stored as
    JSON, so the names of the fields must not change.
    """

    alert: Alert
    pending_channels: list[str]
    tries: int = 0


def split_dropped(unsent: Sequence[UnsentAlert]) -> tuple[list[UnsentAlert], list[str]]:
    """Return the alerts that may be sent again, and a line for each alert that is given up.

    Only the last 100 of `unsent` may be sent again, and none that has 288 tries or more.
    """
    newest = unsent[-_MOST_UNSENT:]
    dropped = [
        f"dropped, as over {_MOST_UNSENT} alerts wait: {u.alert.title}; run finops alerts test"
        for u in unsent[:-_MOST_UNSENT]
    ]
    dropped += [
        f"not sent in {_MOST_TRIES} tries, and dropped: {u.alert.title}; run finops alerts test"
        for u in newest
        if u.tries >= _MOST_TRIES
    ]
    return [u for u in newest if u.tries < _MOST_TRIES], dropped


def send_alerts(
    unsent: Sequence[UnsentAlert], channels: Mapping[str, Channel], end: float
) -> tuple[list[UnsentAlert], list[str]]:
    """Send alerts; return those that are still unsent, and a line for each channel that failed.

    The unsent ones are new objects in the order of `unsent`, and the lines have no secrets. After a
    failure, a channel gets no further alert in this call. No send begins after `end`, a time of
    `time.monotonic`, and each is waited for up to 15 seconds. A send that takes longer has failed,
    but goes on in its thread, so its alert may be received twice. Pending channels that are not in
    `channels` are removed; an alert without any other is not returned. Alerts with fewer tries are
    sent first.
    """
    problems: dict[str, str] = {}
    waiting: dict[int, UnsentAlert] = {}
    for number, item in sorted(enumerate(unsent), key=lambda pair: pair[1].tries):
        pending, tries = [], item.tries
        for name in (name for name in item.pending_channels if name in channels):
            if name not in problems and time.monotonic() < end:
                problem = _send(channels[name], item.alert)
                if problem is None:
                    continue
                problems[name], tries = f"{name}: {problem}", item.tries + 1
            pending.append(name)
        if pending:
            waiting[number] = UnsentAlert(item.alert, pending, tries)
    return [waiting[number] for number in sorted(waiting)], [*problems.values()]


def _send(channel: Channel, alert: Alert) -> str | None:
    """Send an alert; return why it was not sent, in a line without secrets, or None."""
    sender = ThreadPoolExecutor(1)
    try:
        sender.submit(channel.send, alert).result(_SEND_SECONDS)
    except SendFailed as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {_SEND_SECONDS} s; run finops alerts test"
    except Exception as error:
        # Its text may have a part of a secret. An error here must not stop the other channels.
        return f"failed with {type(error).__name__}; run finops alerts test"
    finally:
        sender.shutdown(wait=False)
    return None
