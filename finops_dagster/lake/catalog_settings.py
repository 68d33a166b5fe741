"""The settings of an Iceberg catalog, in which the files of the lake are registered."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import field_validator

from finops_dagster.lake.addresses import LakeSettings
from finops_dagster.settings_table import SettingsError, SettingsTable, pattern_validator

CHARGES_TABLE = "focus"
"""The name of the table of the charges of all exports."""


class CatalogSettings(SettingsTable):
    """A catalog, and the namespace of the tables in it.

    `uri` is the database of a catalog in SQL, or the address of a REST catalog. `warehouse` is
    pyiceberg's property; without it, the metadata of tables are in the folder `iceberg` of the
    lake, or where a REST catalog puts them. `properties` are further ones of pyiceberg. Secrets are
    in the environment variables that pyiceberg reads, such as
    PYICEBERG_CATALOG__FINOPS__CREDENTIAL.
    """

    type: Literal["sql", "rest", "glue"]
    uri: str | None = None
    warehouse: str | None = None
    namespace: Annotated[str, pattern_validator(r"\w+", "must have letters, digits and _ only")] = (
        "finops"
    )
    properties: Mapping[str, str] = {}

    @field_validator("properties")
    @classmethod
    def _refuse_credential(cls, properties: Mapping[str, str]) -> Mapping[str, str]:
        if "credential" in properties:
            raise ValueError(
                "credential is a secret; remove it, and set PYICEBERG_CATALOG__FINOPS__CREDENTIAL "
                "in the environment"
            )
        return properties

    @staticmethod
    def require_client() -> None:
        """Raise SettingsError if pyiceberg is not installed."""
        if find_spec("pyiceberg") is None:
            raise SettingsError(
                "pyiceberg, which [catalog] needs, is not installed; run pip install '.[iceberg]' "
                "in the folder from which finops_dagster was installed"
            )

    def all_properties(self, lake: str, access: LakeSettings) -> dict[str, str]:
        """Return the properties for pyiceberg's `load_catalog`.

        For Glue and for a lake in S3, they have AWS credentials: do not log them. `lake` is the
        address of the lake, and `access` has its settings of S3. `properties` of the settings
        override the others. Raises botocore's errors.
        """
        warehouse = self.warehouse
        if warehouse is None and self.type != "rest":
            warehouse = f"{lake_url(lake)}/iceberg"
        is_aws = self.type == "glue" or lake.startswith("s3://")
        found = {
            "type": self.type,
            "uri": self.uri,
            "warehouse": warehouse,
            **(_aws_properties(access) if is_aws else {}),
        }
        return {name: text for name, text in found.items() if text} | dict(self.properties)


def _aws_properties(access: LakeSettings) -> dict[str, str | None]:
    """Return the credentials that boto3 finds, as for the lake: pyarrow knows no profiles."""
    from finops_dagster.object_stores.aws_session import aws_session

    session = aws_session(access.region, access.profile, access.role_arn, access.external_id)
    credentials = session.get_credentials()
    keys = credentials.get_frozen_credentials() if credentials else None
    return {
        "s3.endpoint": access.endpoint_url,
        # Without a region, pyiceberg asks AWS for that of the bucket.
        "client.region": session.region_name or ("us-east-1" if access.endpoint_url else None),
        "client.access-key-id": keys and keys.access_key,
        "client.secret-access-key": keys and keys.secret_key,
        "client.session-token": keys and keys.token,
    }


def lake_url(location: str) -> str:
    """Return the location of a lake, or of a file in it, as a URL, as catalogs write it.

    A path becomes an absolute `file://` URL, not percent-encoded; a URL only loses a slash at its
    end. For a month's file in a folder, catalogs have `create_permanent_url` instead.
    """
    # Path.as_uri would quote the = of a month's folder, which Iceberg's readers do not undo.
    return location.rstrip("/") if "://" in location else f"file://{Path(location).absolute()}"
