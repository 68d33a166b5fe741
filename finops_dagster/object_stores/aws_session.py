"""Sessions of AWS: with the credentials that boto3 finds, or with those of a role."""

from __future__ import annotations

from typing import Any

import boto3
import botocore.session
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)


def aws_session(
    region: str | None, profile: str | None, role_arn: str | None, external_id: str | None
) -> boto3.Session:
    """Return a session with the profile's credentials; without a profile, those that boto3 finds.

    With `role_arn`, the session has the credentials of that role. It is assumed at the first
    request, with `external_id` if that is set, and again before the credentials expire. Without
    `region`, it is that of the profile or the environment, or None. Raises botocore's
    ProfileNotFound.
    """
    session = boto3.Session(profile_name=profile, region_name=region)
    if not role_arn:
        return session
    assumed_session = botocore.session.get_session()
    role = _AssumedRole(session, role_arn, external_id)
    assumed_session.register_component("credential_provider", CredentialResolver([role]))
    return boto3.Session(botocore_session=assumed_session, region_name=session.region_name)


class _AssumedRole(CredentialProvider):
    """Credentials of the settings' role, renewed while a long download runs."""

    METHOD = "assume-role"

    def __init__(self, session: boto3.Session, role_arn: str, external_id: str | None) -> None:
        super().__init__()
        self._session, self._role = session, {"RoleArn": role_arn}
        if external_id:
            self._role["ExternalId"] = external_id

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._assume, self.METHOD)

    def _assume(self) -> dict[str, str]:
        sts: Any = self._session.client("sts")
        role = sts.assume_role(**self._role, RoleSessionName="finops_dagster")["Credentials"]
        return {
            "access_key": role["AccessKeyId"],
            "secret_key": role["SecretAccessKey"],
            "token": role["SessionToken"],
            "expiry_time": role["Expiration"].isoformat(),
        }
