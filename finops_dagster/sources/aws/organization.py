"""The accounts of an organization of AWS, and their tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import botocore.exceptions as aws
from botocore.config import Config

from finops_dagster.billing.errors import BillError
from finops_dagster.object_stores.aws_session import aws_session
from finops_dagster.object_stores.s3_errors import aws_message

# Organizations answers few requests a second; botocore then waits and tries again.
_CONFIG = Config(retries={"mode": "adaptive", "total_max_attempts": 10}, connect_timeout=10)
_ADVICE = {
    "AccessDeniedException": "use credentials of the management account, or of a delegated "
    "administrator, whose policy allows {action}",
    "AccessDenied": "use credentials whose policy allows {action}, and that the role trusts",
    "AWSOrganizationsNotInUseException": "use credentials of an account that is in an organization",
    "ExpiredTokenException": "renew the credentials",
    "UnrecognizedClientException": "set other credentials",
    "InvalidClientTokenId": "set other credentials",
}
_NO_CREDENTIALS = (
    "no AWS credentials were found; use --profile, or set AWS_PROFILE, or both AWS_ACCESS_KEY_ID "
    "and AWS_SECRET_ACCESS_KEY"
)


class AccessDenied(BillError):
    """AWS refuses an action to these credentials."""


class Organization:
    """The organization that the AWS credentials belong to.

    The credentials are boto3's own, or those of a profile or a role. All methods raise BillError.
    """

    def __init__(
        self,
        region: str,
        endpoint_url: str | None = None,
        profile: str | None = None,
        role_arn: str | None = None,
        external_id: str | None = None,
    ) -> None:
        with _translated_errors():
            session = aws_session(region, profile, role_arn, external_id)
            self._client: Any = session.client(
                "organizations", endpoint_url=endpoint_url, config=_CONFIG
            )

    def account_names(self) -> dict[str, str]:
        """Return the names of all accounts by id; closed ones too, as old bills may have them."""
        with _translated_errors():
            return {
                account["Id"]: account.get("Name", "")
                for page in self._client.get_paginator("list_accounts").paginate()
                for account in page["Accounts"]
            }

    def tags(self, account_id: str) -> Mapping[str, str]:
        """Return the tags of an account by key. Raises AccessDenied without the right to read."""
        with _translated_errors():
            return {
                tag["Key"]: tag["Value"]
                for page in self._client.get_paginator("list_tags_for_resource").paginate(
                    ResourceId=account_id
                )
                for tag in page["Tags"]
            }


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except aws.ClientError as error:
        code = error.response["Error"].get("Code") or "without a code"
        is_role = error.operation_name.startswith("AssumeRole")
        action = f"{'sts' if is_role else 'organizations'}:{error.operation_name}"
        message = aws_message(error)
        line = f"AWS refuses {action} ({code}{message and f': {message}'})"
        advice = _ADVICE.get(code, "check the credentials, or run the command again later")
        kind = AccessDenied if code.startswith("AccessDenied") else BillError
        raise kind(f"{line}; {advice.format(action=action)}") from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise BillError(_NO_CREDENTIALS) from error
    except aws.BotoCoreError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        advice = "check --profile, --region and the network"
        raise BillError(f"AWS Organizations: {reason}; {advice}") from error
