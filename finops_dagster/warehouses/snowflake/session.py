"""A session with Snowflake: how it begins, how long it waits, and what its errors say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import snowflake.connector
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from snowflake.connector import SnowflakeConnection, errors

from finops_dagster.billing.errors import BillError
from finops_dagster.warehouses.snowflake import Settings

# The connector tries to log in for as long as it is let.
_LOGIN_SECONDS = 30
_ANSWER_SECONDS = 10 * 60
# Snowflake ends the transaction of a client that is gone when another has waited 5 minutes for it.
_LOCK_SECONDS = 30 * 60

# A statement that was cancelled from outside, and one that came when 20 waited for the lock.
_PASSING_NUMBERS = {604, 625}
_PASSING = (
    errors.OperationalError,
    errors.InternalServerError,
    errors.ServiceUnavailableError,
    errors.GatewayTimeoutError,
    errors.RequestTimeoutError,
    errors.BadGatewayError,
    errors.TooManyRequests,
    errors.OtherHTTPRetryableError,
    errors.RequestExceedMaxRetryError,
    errors.TokenExpiredError,
)
_NOT_PASSING = (errors.NonRetryableTlsError, errors.RevocationCheckError)


@contextmanager
def session(settings: Settings, tag: str) -> Iterator[SnowflakeConnection]:
    """A session whose queries have a tag; credentials are in the environment. Raises BillError
    where there are none."""
    connection = snowflake.connector.connect(
        **settings.model_dump(by_alias=True, exclude={"stage"}, exclude_none=True),
        **_credentials(),
        validate_default_parameters=True,
        application="finops_dagster",
        paramstyle="qmark",
        login_timeout=_LOGIN_SECONDS,
        network_timeout=_ANSWER_SECONDS,
        # Asks the clouds' metadata services which of them this machine is in.
        platform_detection_timeout_seconds=0.0,
        session_parameters={
            "CLIENT_TELEMETRY_ENABLED": False,
            "LOCK_TIMEOUT": _LOCK_SECONDS,
            "QUERY_TAG": tag,
            "TIMEZONE": "UTC",
        },
    )
    connection.telemetry_enabled = False
    with closing(connection):
        yield connection


def may_pass(error: errors.Error) -> bool:
    """Whether asking again may help."""
    passes = isinstance(error, _PASSING) or error.errno in _PASSING_NUMBERS
    return passes and not isinstance(error, _NOT_PASSING)


def _credentials() -> dict[str, Any]:
    key, passphrase, password = (
        os.environ.get(f"SNOWFLAKE_{name}")
        for name in ("PRIVATE_KEY_PATH", "PRIVATE_KEY_PASSPHRASE", "PASSWORD")
    )
    if not key and not password:
        raise BillError(
            "no Snowflake credentials were found; set SNOWFLAKE_PASSWORD, or for a key pair "
            "SNOWFLAKE_PRIVATE_KEY_PATH"
        )
    if not key:
        return {"password": password}
    try:
        private = load_pem_private_key(
            Path(key).read_bytes(), passphrase.encode() if passphrase else None
        )
    except (OSError, TypeError, ValueError) as error:
        raise BillError(
            f"SNOWFLAKE_PRIVATE_KEY_PATH: no private key can be read from {key}; is it a PEM "
            "file, and SNOWFLAKE_PRIVATE_KEY_PASSPHRASE its passphrase?"
        ) from error
    return {"private_key": private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())}
