"""How AWS delivers an example bill."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["cur1", "cur2", "focus-1.0", "focus-1.2"]
Files = Literal["gzip", "zip", "csv", "parquet"]

_DELIVERED_AS: dict[str, tuple[str, ...]] = {
    "cur1": ("gzip", "zip", "csv", "parquet"),
    "cur2": ("gzip", "parquet"),
    "focus-1.0": ("gzip", "parquet"),
    "focus-1.2": ("gzip", "parquet"),
}


@dataclass(frozen=True)
class Layout:
    """What AWS was asked for: format, kind of files, and whether a refresh overwrites the last.

    `csv` is a CUR v1 that somebody unpacked on its way; AWS itself always compresses.

    The rest is where Data Exports (CUR 2.0 and FOCUS) have been seen to differ; CUR v1 ignores
    it. `data_files` is how the manifest names a file: its URI as plain text, an object with the
    key, or an object with URI and size. `partition` is the spelling in the folder of a month.
    `plain_manifest_name` calls manifests `Manifest.json` instead of `<export>-Manifest.json`.
    """

    format: Format = "cur1"
    files: Files = "gzip"
    overwrite: bool = False
    data_files: Literal["uri", "key", "object"] = "uri"
    partition: Literal["BILLING_PERIOD", "billing_period"] = "BILLING_PERIOD"
    plain_manifest_name: bool = False

    def __post_init__(self) -> None:
        """Refuse what AWS cannot be asked for."""
        if self.files not in _DELIVERED_AS.get(self.format, ()):
            raise ValueError(f"there is no {self.format} export in {self.files} files")
        if (self.format, self.files, self.overwrite) == ("cur1", "parquet", False):
            raise ValueError("a cur1 export in parquet files always overwrites: overwrite=True")
        if self.data_files not in ("uri", "key", "object"):
            raise ValueError(f"data_files must be uri, key or object, not {self.data_files}")
        if self.partition.upper() != "BILLING_PERIOD":
            raise ValueError(f"partition must be BILLING_PERIOD in any case, not {self.partition}")

    @property
    def suffix(self) -> str:
        """What names of files end in."""
        return {
            "gzip": "csv.gz",
            "zip": "csv.zip",
            "csv": "csv",
            "parquet": "snappy.parquet",
        }[self.files]
