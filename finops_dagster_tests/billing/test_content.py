"""When two deliveries have the same content, and which version id each has."""

from __future__ import annotations

from decimal import Decimal

import pytest

from finops_dagster.billing.content import Content, FileContent, is_version_of, relative_names
from finops_dagster.billing.money import Totals
from finops_dagster.billing.version import Version, version_id

TOTALS = Totals(2, Decimal("3.5"))


def content(**checksums: str | None) -> Content:
    return Content.of(FileContent(name, 100, sha256) for name, sha256 in checksums.items())


def known_as(manifest_id: str, of: Content | None, size: int = 200) -> Version:
    return Version(manifest_id, TOTALS, "cur1", 2, size, of)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["a/2024-01/v1/1.gz", "a/2024-01/v1/2.gz"], ["1.gz", "2.gz"]),
        (["copy/of/a/2024-01/V1/1.gz", "copy/of/a/2024-01/V1/2.gz"], ["1.gz", "2.gz"]),
        (["a/v1/x/1.gz", "a/v1/y/1.gz"], ["x/1.gz", "y/1.gz"]),
        (["a/v1/1.gz", "a/v1/more/1.gz"], ["1.gz", "more/1.gz"]),
        (["a/1", "a/1x/1"], ["1", "1x/1"]),
        (["1.gz"], ["1.gz"]),
        (["/a//1.gz"], ["1.gz"]),
        ([], []),
    ],
)
def test_file_names_are_relative_to_the_folder_that_all_files_share(
    keys: list[str], names: list[str]
) -> None:
    assert relative_names(keys) == names


def test_content_does_not_depend_on_the_order_of_files() -> None:
    assert content(a="1", b="2").digest == content(b="2", a="1").digest
    assert content(a="1", b="2").digest != content(a="2", b="1").digest


@pytest.mark.parametrize(
    ("version", "manifest_id", "is_of"),
    [
        ("v1", "v1", True),
        ("v1+1a2b3c4d", "v1", True),
        ("v1+1a2b3c4d", "v1+1a2b3c4d", True),
        ("v1+1a2b3c4d", "v", False),
        ("v1+1a2b3c4", "v1", False),
        ("v12", "v1", False),
        ("2026-02-03T04:05:06.789Z-x+00000000", "2026-02-03T04:05:06.789Z-x", True),
    ],
)
def test_a_version_id_is_the_vendors_id_with_or_without_a_digest(
    version: str, manifest_id: str, is_of: bool
) -> None:
    assert is_version_of(version, manifest_id) is is_of


def test_the_first_content_has_the_vendors_id_and_others_add_a_digest() -> None:
    first, second = content(a="1", b="2"), content(a="1", b="3")
    assert version_id("v1", first, TOTALS, []) == "v1"
    assert version_id("v1", second, TOTALS, [known_as("v1", first)]) == f"v1+{second.digest}"
    known = [known_as(f"v1+{second.digest}", second), known_as("v1", first)]
    assert version_id("v1", first, TOTALS, known) == "v1"
    assert version_id("v1", second, TOTALS, known) == f"v1+{second.digest}"


@pytest.mark.parametrize(
    ("files", "loaded_bytes", "is_same"),
    [
        (("a.gz", "b.gz"), 200, True),
        (("a.gz", "b.gz"), 199, False),
        (("a.gz", "b.gz", "c.gz"), 300, False),
        (("a.zip", "b.zip"), 120, True),
        (("a.zip", "b.gz"), 201, False),
    ],
)
def test_a_load_without_a_list_of_files_is_compared_by_their_number_and_bytes(
    files: tuple[str, ...], loaded_bytes: int, is_same: bool
) -> None:
    available = Content.of(FileContent(name, 100) for name in files)
    assert known_as("v1", None, loaded_bytes).is_unchanged(available) is is_same
