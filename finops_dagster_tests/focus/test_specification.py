"""A version of FOCUS is data: the columns of 1.2, and of a newer version in a file of the tests."""

from pathlib import Path

import pytest

from finops_dagster.billing.columns import SqlType
from finops_dagster.focus.specification import FocusType, Level, Specification

NEWER = Path(__file__).with_name("focus-1.4.toml")


def test_focus_1_2_has_57_columns_in_the_order_of_their_names() -> None:
    names = [column.name for column in Specification.load("1.2").columns]
    assert len(names) == 57
    assert names == sorted(names)


def test_columns_have_the_levels_of_the_specification() -> None:
    levels = [column.level for column in Specification.load().columns]
    assert {level: levels.count(level) for level in Level} == {
        Level.MANDATORY: 21,
        Level.CONDITIONAL: 32,
        Level.RECOMMENDED: 4,
    }


def test_amounts_are_exact_times_are_timestamps_and_tags_are_maps() -> None:
    specification = Specification.load()
    types = {column.name: column.type.sql_type for column in specification.columns}
    assert types["BilledCost"] == SqlType.MONEY
    assert types["ChargePeriodStart"] == SqlType.TIME
    assert types["Tags"] == types["SkuPriceDetails"] == SqlType.TEXT_MAP
    assert types["SubAccountId"] == SqlType.TEXT
    assert [column.type for column in specification.columns].count(FocusType.DECIMAL) == 12


def test_each_subcategory_belongs_to_one_of_the_categories() -> None:
    specification = Specification.load()
    categories = specification.column("ServiceCategory").allowed_values
    subcategory = specification.column("ServiceSubcategory")
    assert subcategory.values_by_category is not None
    assert set(subcategory.values_by_category) == set(categories)
    assert len(categories) == 19
    assert len(subcategory.allowed_values) == len(set(subcategory.allowed_values)) == 82
    for category, values in subcategory.values_by_category.items():
        assert f"Other ({category})" in values


def test_only_conditional_columns_and_zones_depend_on_the_provider() -> None:
    for column in Specification.load().columns:
        depends = column.level is Level.CONDITIONAL or column.name == "AvailabilityZone"
        assert (column.when is not None) == depends, column.name


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(KeyError, match="HostProviderName"):
        Specification.load().column("HostProviderName")


def test_a_newer_version_is_another_file() -> None:
    older, newer = Specification.load(), Specification.read(NEWER)
    names = {column.name for column in newer.columns}
    assert len(newer.columns) == 65
    assert {column.name for column in older.columns} - names == {"ProviderName", "PublisherName"}
    assert newer.column("ServiceProviderName").nullable is False
    assert newer.column("AllocatedTags").type.sql_type == SqlType.TEXT_MAP
    assert newer.column("BilledCost") == older.column("BilledCost")
