"""Shared by the channels: their error, their secrets, and their time limit."""

from __future__ import annotations

import os
import socket
import ssl

SECONDS = 10
"""How long a channel waits for an answer. A tick of a sensor has a minute for all channels."""
_CHECK_ADDRESS = "check the address and the network"


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
        return f"no answer within {SECONDS} s; check the address, the port and the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        trust = "add its authority to the certificates of this machine"
        return f"the server's certificate is not trusted: {error.verify_message}; {trust}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "the handshake failed"
        return f"no encrypted connection: {reason}; check the port, and whether it is one for TLS"
    if isinstance(error, socket.gaierror):
        return f"the server's name is unknown; {_CHECK_ADDRESS}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}; {_CHECK_ADDRESS}"
    return f"the connection failed; {_CHECK_ADDRESS}"
