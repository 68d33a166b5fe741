"""Shared by the channels: their error, their secrets, and their time limit."""

from __future__ import annotations

import os
import socket
import ssl

SECONDS = 10
"""How long a channel waits for an answer. A tick of a sensor has a minute for all channels."""


class SendFailed(Exception):
    """An alert was not sent; the message is one line without secrets."""


def read_secret(variable: str) -> str:
    """Return the secret in an environment variable, without blanks at its ends.

    Raises SendFailed if the variable is missing or blank.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise SendFailed(f"the environment variable {variable} is not set; set it for this process")
    return value


def network_problem(error: BaseException) -> str:
    """Return in a few words why a connection failed, without the URL and its secrets.

    If the certificate is for another host, the words name the host.
    """
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection: {error.reason or 'the handshake failed'}"
    if isinstance(error, socket.gaierror):
        return "the server's name is unknown; check the address and the network"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the connection failed"
