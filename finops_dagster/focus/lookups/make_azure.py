"""Make the lookup tables of Azure from the open data of Microsoft's FinOps toolkit (MIT licence).

    python -m finops_dagster.focus.lookups.make_azure FINOPS_TOOLKIT

`FINOPS_TOOLKIT` is a clone of https://github.com/microsoft/finops-toolkit; the tables here are of
commit 04d370f3 (2026-05-20).

azure_regions.csv         names of regions in bills, in lower case -> RegionId, RegionName
azure_resource_types.csv  resource types, in lower case -> the name that the portal shows
azure_service_names.csv   ServiceName -> ServiceCategory, ServiceSubcategory; a subcategory that
                          FOCUS does not have in the category becomes the category's "Other"
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from finops_dagster.focus.specification import Specification

_FOLDER = Path(__file__).parent


def _read(toolkit: Path, name: str) -> Iterator[dict[str, str]]:
    path = toolkit / "src/open-data" / f"{name}.csv"
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def _write(name: str, header: str, rows: Iterable[tuple[str, ...]]) -> None:
    with (_FOLDER / f"{name}.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(header.split())
        writer.writerows(sorted(set(rows)))


def _services(toolkit: Path) -> Iterator[tuple[str, str, str]]:
    allowed = Specification.load().column("ServiceSubcategory").values_by_category or {}
    for row in _read(toolkit, "Services"):
        category, subcategory = row["ServiceCategory"], row["ServiceSubcategory"]
        is_known = subcategory in allowed[category]
        yield row["ServiceName"], category, subcategory if is_known else f"Other ({category})"


def main(toolkit: Path) -> None:
    """Write the CSV files of these lookup tables beside this file, from a clone of the toolkit."""
    _write(
        "azure_regions",
        "region id name",
        (
            (row["OriginalValue"].lower(), row["RegionId"], row["RegionName"])
            for row in _read(toolkit, "Regions")
            if row["RegionId"]
        ),
    )
    _write(
        "azure_resource_types",
        "type name",
        (
            (row["ResourceType"].lower(), row["SingularDisplayName"])
            for row in _read(toolkit, "ResourceTypes")
            if row["SingularDisplayName"]
        ),
    )
    _write("azure_service_names", "service category subcategory", _services(toolkit))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
