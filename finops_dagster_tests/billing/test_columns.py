"""Column names: stable for ever, whatever comes first."""

from __future__ import annotations

from finops_dagster.billing.columns import column_names, flat_name, name_within
from finops_dagster.billing.vendors.aws_cur1 import AwsCur1

CUR1 = AwsCur1()


def names(*headers: str, **known: str) -> dict[str, str]:
    return column_names(headers, known, CUR1)


def test_names_are_flat() -> None:
    assert flat_name("identity/LineItemId") == "identity_lineitemid"
    assert flat_name("resourceTags/user:Cost Center/ö") == "resourcetags_user_cost_center__"


def test_one_header_of_a_name_has_it_plain() -> None:
    assert names("resourceTags/user:Name") == {"resourceTags/user:Name": "resourcetags_user_name"}


def test_the_order_of_headers_decides_nothing() -> None:
    tags = ["resourceTags/user:Team", "resourceTags/user:team", "resourceTags/user_team"]
    forward, backward = names(*tags), names(*reversed(tags))
    assert forward == backward
    assert forward["resourceTags/user_team"] == "resourcetags_user_team"
    assert len({name.lower() for name in forward.values()}) == 3


def test_a_name_once_given_is_kept() -> None:
    first = names("resourceTags/user:Team")
    both = column_names(["resourceTags/user:team", "resourceTags/user:Team"], first, CUR1)
    assert both["resourceTags/user:Team"] == "resourcetags_user_team"
    assert both["resourceTags/user:team"].startswith("resourcetags_user_team_")
    alone = column_names(["resourceTags/user:team"], first | both, CUR1)
    assert alone["resourceTags/user:team"] == both["resourceTags/user:team"]


def test_the_vendors_own_spellings_share_a_column_but_not_in_one_file() -> None:
    real, other = "savingsPlan/SavingsPlanARN", "savingsPlan/SavingsPlanArn"
    known = names(real)
    assert column_names([other], known, CUR1) == {other: known[real]}
    assert len(set(names(real, other).values())) == 2


def test_spellings_that_shared_a_column_part_where_one_file_has_both() -> None:
    real, other = "savingsPlan/SavingsPlanARN", "savingsPlan/SavingsPlanArn"
    plain = "savingsplan_savingsplanarn"
    known = {real: plain, other: plain}
    both = column_names([other, real], known, CUR1)
    assert both == column_names([real, other], known, CUR1)
    assert both[other] == plain  # it needs less rewriting than the other
    assert both[real].startswith(f"{plain}_")
    assert column_names([other], known, CUR1) == {other: plain}


def test_a_tag_keeps_its_name_though_another_was_given_it_elsewhere() -> None:
    low, up = "resourceTags/user:team", "resourceTags/user:Team"
    plain = "resourcetags_user_team"
    known = {low: plain, up: plain}
    assert column_names([low], known, CUR1) == {low: plain}
    assert len(set(column_names([low, up], known, CUR1).values())) == 2


def test_the_tables_own_columns_are_never_taken() -> None:
    assert names("billing/month")["billing/month"] != "billing_month"


def test_a_name_that_is_too_long_is_cut_and_stays_its_own() -> None:
    assert name_within(63, "n" * 63) == "n" * 63
    cut = {name_within(63, "n" * length) for length in range(64, 1_000)}
    assert len(cut) == 1_000 - 64
    assert {len(name) for name in cut} == {63}
    assert name_within(63, "n" * 64) == name_within(63, "n" * 64) != name_within(30, "n" * 64)


def test_a_name_is_cut_by_bytes_between_characters() -> None:
    name = name_within(30, "漢" * 20)
    assert len(name.encode()) <= 30
    assert name.startswith("漢漢漢漢_")
