"""The settings of an Iceberg catalog, in which the files of the lake are registered."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import StringConstraints

from finops_dagster.lake.addresses import LakeSettings
from finops_dagster.lake.lake import Lake
from finops_dagster.settings_table import SettingsError, SettingsTable

CHARGES_TABLE = "focus"
"""The name of the table of the charges of all exports."""


class CatalogSettings(SettingsTable):
    """A catalog, and the namespace of the tables in it.

    `uri` is the database of a catalog in SQL, or the address of a REST catalog. `warehouse` is what
    pyiceberg calls so; without it, the metadata of tables are in the folder `iceberg` of the lake.
    `properties` are further ones of pyiceberg. Secrets are in the environment variables that
    pyiceberg reads, such as PYICEBERG_CATALOG__FINOPS__CREDENTIAL.
    """

    type: Literal["sql", "rest", "glue"]
    uri: str | None = None
    warehouse: str | None = None
    namespace: Annotated[str, StringConstraints(pattern=r"^\w+$")] = "finops"
    properties: Mapping[str, str] = {}

    @staticmethod
    def require_client() -> None:
        """Raise SettingsError if pyiceberg is not installed."""
        if find_spec("pyiceberg") is None:
            raise SettingsError(
                "pyiceberg is not installed, which [catalog] needs; run pip install '.[iceberg]' "
                "in the folder from which finops_dagster was installed"
            )

    def all_properties(self, lake: Lake, access: LakeSettings) -> dict[str, str]:
        """Return the properties for pyiceberg; `access` says how a lake in S3 is reached."""
        warehouse = self.warehouse
        if warehouse is None and self.type != "rest":
            warehouse = f"{lake_url(lake.location)}/iceberg"
        found = {
            "type": self.type,
            "uri": self.uri,
            "warehouse": warehouse,
            "s3.endpoint": access.endpoint_url,
            "s3.region": access.region,
            "s3.profile-name": access.profile,
            "s3.role-arn": access.role_arn,
            "glue.region": access.region,
            "glue.profile-name": access.profile,
        }
        return {name: text for name, text in found.items() if text} | dict(self.properties)


def lake_url(location: str) -> str:
    """Return the location of a lake, or of a file in it, as a URL: the form it has in a catalog."""
    # Path.as_uri would quote the = of a month's folder, which Iceberg's readers do not undo.
    return location if "://" in location else f"file://{Path(location).absolute()}"
