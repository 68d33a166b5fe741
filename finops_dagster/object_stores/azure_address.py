"""Parses the addresses of Azure Blob Storage that people paste."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from finops_dagster.billing.errors import excerpt

AZURE_SCHEMES = ("https", "http", "abfss", "abfs", "az", "azure", "wasbs", "wasb")
AZURE_EXAMPLE = "https://account.blob.core.windows.net/container/folder"
# `dfs` is another endpoint of the same data. The names of some endpoints have a DNS zone.
_HOST = re.compile(
    r"(?P<account>[a-z0-9]{3,24})(?P<zone>\.z\d+)?\.(?:blob|dfs)\.(?P<cloud>core\.windows\.net|"
    r"core\.usgovcloudapi\.net|core\.chinacloudapi\.cn|storage\.azure\.net)"
)
# An emulator has the account in the path of its addresses.
_EMULATOR = re.compile(r"localhost|[\d.]+|.+:\d+")
_CONTAINER = re.compile(r"\$(root|web|logs)|(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_SAS = re.compile(r"[?&](se|sig|sp|sv)=", re.I)


@dataclass(frozen=True)
class AzureAddress:
    """A container and a prefix of keys in it.

    `endpoint` and `account` are empty for `az://container/prefix`: the environment names them.
    """

    endpoint: str
    account: str
    container: str
    prefix: str

    @property
    def root(self) -> str:
        """The address of the container; `az://container` if the endpoint is empty."""
        return f"{self.endpoint or 'az:/'}/{self.container}"

    @classmethod
    def parse(cls, source: str) -> AzureAddress:
        """Parse the address of a container or of a folder in it, in any of `AZURE_SCHEMES`.

        Escapes in the path are decoded: `%20` is a blank. The prefix has no slash at its ends.
        Raises ValueError, also if the address has a query, which may be a SAS.
        """
        scheme, _, rest = source.partition("://")
        _refuse_query(rest)
        place, _, path = rest.partition("/")
        container, _, host = place.rpartition("@")
        is_url, example = scheme.lower() in ("https", "http"), AZURE_EXAMPLE
        if match := _HOST.fullmatch(host.lower().removesuffix(":443")):
            account = match["account"]
            endpoint = f"https://{account}{match['zone'] or ''}.blob.{match['cloud']}"
        elif is_url and _EMULATOR.fullmatch(host):
            account, _, path = path.partition("/")
            endpoint = f"{scheme.lower()}://{host}/{account}"
            example = f"{scheme.lower()}://{host}/account/container/folder"
        elif is_url or container:
            raise ValueError(f"{excerpt(host)} is no host of Azure Blob Storage; write {example}")
        else:
            endpoint, account, container = "", "", host
        if not container:
            container, _, path = path.partition("/")
        if not container:
            raise ValueError(f"{excerpt(source)} names no container; write {example}")
        if not _CONTAINER.fullmatch(container):
            raise ValueError(
                f"{excerpt(container)} cannot be the name of a container, which has 3 to 63 "
                f"lower-case letters, digits and hyphens; write {example}"
            )
        return cls(endpoint, account, container, unquote(path).strip("/"))


def _refuse_query(rest: str) -> None:
    """Raise ValueError if an address has a query, without its text: a SAS is a secret."""
    if _SAS.search(unquote(rest)):
        raise ValueError(
            "has a SAS, which is a secret: remove it with its question mark, and set it as "
            "AZURE_STORAGE_SAS_TOKEN in the environment"
        )
    if "?" in rest:
        raise ValueError(
            f"{excerpt(rest.partition('?')[0])} is followed by a query; remove it, or write a "
            "question mark in a name as %3F"
        )
