"""Column names stay the same for ever, whatever order the headers come in."""

from __future__ import annotations

import pytest

from finops_dagster.billing.columns import flat_name, name_columns, shortened_name
from finops_dagster.sources.aws.cur1 import AwsCur1

CUR1 = AwsCur1()


def names(*headers: str, **known: str) -> dict[str, str]:
    return name_columns(headers, known, CUR1)


def test_a_header_becomes_a_flat_lower_case_name() -> None:
    assert flat_name("identity/LineItemId") == "identity_lineitemid"
    assert flat_name("resourceTags/user:Cost Center/ö") == "resourcetags_user_cost_center__"


def test_a_header_without_rivals_has_the_plain_name() -> None:
    assert names("resourceTags/user:Name") == {"resourceTags/user:Name": "resourcetags_user_name"}


def test_names_do_not_depend_on_the_order_of_headers() -> None:
    tags = ["resourceTags/user:Team", "resourceTags/user:team", "resourceTags/user_team"]
    forward, backward = names(*tags), names(*reversed(tags))
    assert forward == backward
    assert forward["resourceTags/user_team"] == "resourcetags_user_team"
    assert len({name.lower() for name in forward.values()}) == 3


def test_a_header_keeps_the_name_that_it_was_given() -> None:
    first = names("resourceTags/user:Team")
    both = name_columns(["resourceTags/user:team", "resourceTags/user:Team"], first, CUR1)
    assert both["resourceTags/user:Team"] == "resourcetags_user_team"
    assert both["resourceTags/user:team"].startswith("resourcetags_user_team_")
    alone = name_columns(["resourceTags/user:team"], first | both, CUR1)
    assert alone["resourceTags/user:team"] == both["resourceTags/user:team"]


def test_two_spellings_of_a_vendors_header_share_a_column_unless_one_file_has_both() -> None:
    official, variant = "savingsPlan/SavingsPlanARN", "savingsPlan/SavingsPlanArn"
    known = names(official)
    assert name_columns([variant], known, CUR1) == {variant: known[official]}
    assert len(set(names(official, variant).values())) == 2


def test_spellings_that_shared_a_column_get_two_where_one_file_has_both() -> None:
    official, variant = "savingsPlan/SavingsPlanARN", "savingsPlan/SavingsPlanArn"
    plain = "savingsplan_savingsplanarn"
    known = {official: plain, variant: plain}
    both = name_columns([variant, official], known, CUR1)
    assert both == name_columns([official, variant], known, CUR1)
    assert both[variant] == plain  # it needs less rewriting than the other
    assert both[official].startswith(f"{plain}_")
    assert name_columns([variant], known, CUR1) == {variant: plain}


def test_a_tag_keeps_its_name_where_another_tag_has_the_same_one() -> None:
    low, up = "resourceTags/user:team", "resourceTags/user:Team"
    plain = "resourcetags_user_team"
    known = {low: plain, up: plain}
    assert name_columns([low], known, CUR1) == {low: plain}
    assert len(set(name_columns([low, up], known, CUR1).values())) == 2


@pytest.mark.parametrize("family", ["resource_tags_user", "cost_category", "iam_principal"])
def test_keys_that_differ_only_in_case_are_two_columns(family: str) -> None:
    up, low = f"{family}_Team", f"{family}_team"
    both = names(up, low)
    assert both == names(low, up)
    assert both[low] == AwsCur1().column(low)
    assert both[up].startswith(f"{both[low]}_")
    assert all(name == name.lower() for name in both.values())
    assert name_columns([up], both, CUR1) == {up: both[up]}


def test_a_recorded_name_with_capitals_is_taken_in_any_case() -> None:
    known = {"resource_tags_user_Team": "resourcetags_user_Team"}
    both = name_columns([*known, "resource_tags_user_team"], known, CUR1)
    assert both["resource_tags_user_Team"] == "resourcetags_user_Team"
    assert both["resource_tags_user_team"].startswith("resourcetags_user_team_")


def test_a_tag_in_parquet_has_the_column_of_the_csv_tag_in_the_same_case() -> None:
    up, low = "resourceTags/user:Team", "resourceTags/user:team"
    alone = names(up)
    later = name_columns(["resource_tags_user_Team", "resource_tags_user_team"], alone, CUR1)
    assert later["resource_tags_user_Team"] == alone[up]
    assert later["resource_tags_user_team"] != alone[up]
    both = names(up, low)
    for tag, of_csv in (("Team", up), ("team", low)):
        header = f"resource_tags_user_{tag}"
        assert name_columns([header], both, CUR1) == {header: both[of_csv]}


def test_no_header_takes_the_name_of_a_column_of_the_table_itself() -> None:
    assert names("billing/month")["billing/month"] != "billing_month"


def test_long_names_are_cut_and_stay_unique() -> None:
    assert shortened_name(63, "n" * 63) == "n" * 63
    cut = {shortened_name(63, "n" * length) for length in range(64, 1_000)}
    assert len(cut) == 1_000 - 64
    assert {len(name) for name in cut} == {63}
    assert (
        shortened_name(63, "n" * 64) == shortened_name(63, "n" * 64) != shortened_name(30, "n" * 64)
    )


def test_names_are_cut_by_bytes_between_characters() -> None:
    name = shortened_name(30, "漢" * 20)
    assert len(name.encode()) <= 30
    assert name.startswith("漢漢漢漢_")
