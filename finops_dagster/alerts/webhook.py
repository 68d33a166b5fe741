"""Alerts by a webhook of Slack or Teams. Its URL is a secret, which no message shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.send import SECONDS, SendFailed, network_problem, read_secret
from finops_dagster.settings_table import is_loopback


class _NoRedirects(HTTPRedirectHandler):
    """Refuse redirects: the text and the secret in the URL are for one server."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirects)


@dataclass(frozen=True)
class Webhook:
    """A channel that posts alerts to a webhook; the environment variable `url_env` has its URL."""

    url_env: str
    form: Literal["slack", "teams"]

    def send(self, alert: Alert) -> str:
        """Post an alert; see `Channel`.

        Raises SendFailed also if the URL is not https://, unless the server is this machine.
        Redirects are refused.
        """
        document = {"slack": _slack_document, "teams": _teams_document}[self.form](alert)
        body, headers = json.dumps(document).encode(), {"Content-Type": "application/json"}
        url = self._url()
        # Raised after the block: an error of urllib, which may have the URL, is no cause of it.
        try:
            with _OPENER.open(Request(url, body, headers), timeout=SECONDS) as response:
                return f"the server answered {response.status}"
        except HTTPError as error:
            error.close()
            problem = _answer(error.code)
        except URLError as error:
            reason = error.reason
            problem = network_problem(reason if isinstance(reason, Exception) else error)
        except OSError as error:
            problem = network_problem(error)
        except (HTTPException, ValueError):
            problem = "the server's answer is not HTTP, or the URL is not valid; check the URL"
        raise SendFailed(f"{problem} (the URL is in {self.url_env})")

    def _url(self) -> str:
        url, is_usable = read_secret(self.url_env), False
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            # Reading the port raises where it is none.
            is_usable = (
                bool(host)
                and parts.port != 0
                and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
            )
        except ValueError:
            pass
        if not is_usable:
            raise SendFailed(
                f"the environment variable {self.url_env} has no https:// URL; set it to the "
                "webhook's URL"
            )
        return url


def _answer(status: int) -> str:
    if 300 <= status < 400:
        return f"the server answered {status}, a redirect, which is refused; use its target's URL"
    if status == 429 or status >= 500:
        return f"the server answered {status}, which may pass; try again later"
    return f"the server answered {status}; check that the webhook still exists"


def _slack_document(alert: Alert) -> dict[str, Any]:
    """Return the JSON document for Slack's incoming webhooks: plain text without links."""
    text = alert.text
    for character, escape in {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.items():
        text = text.replace(character, escape)
    return {"text": text, "mrkdwn": False}


def _teams_document(alert: Alert) -> dict[str, Any]:
    """Return the JSON document for Teams' workflows: an adaptive card of plain text."""

    # Teams reads Markdown in a TextBlock, but not in the runs of a RichTextBlock.
    def block(text: str, **style: str) -> dict[str, Any]:
        return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}

    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            block(alert.title, weight="Bolder"),
            *map(block, alert.lines),
            block(alert.command, fontType="Monospace"),
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}
