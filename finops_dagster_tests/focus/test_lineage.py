"""Which columns of a bill the columns of its charges are made of."""

from finops_dagster.focus.lineage import bill_columns_of_charges
from finops_dagster.focus.mappings import MAPPINGS

CUR1 = {
    "lineitem_unblendedcost": "DECIMAL(38,18)",
    "lineitem_lineitemtype": "VARCHAR",
    "lineitem_productcode": "VARCHAR",
    "reservation_effectivecost": "DECIMAL(38,18)",
    "product": "MAP(VARCHAR, VARCHAR)",
    "user_team": "VARCHAR",
}


def test_costs_names_and_lookups_lead_to_the_bill() -> None:
    read = bill_columns_of_charges(MAPPINGS["aws", "cur1"], CUR1)
    assert "lineitem_unblendedcost" in read["BilledCost"]
    assert "reservation_effectivecost" not in read["BilledCost"]
    assert read["EffectiveCost"] >= {"lineitem_unblendedcost", "reservation_effectivecost"}
    assert "lineitem_productcode" in read["ServiceCategory"], "by the lookup of services"
    assert "ChargeCategory" not in read, "the kind of the line item says it"
    assert read["x_user_team"] == {"user_team"}
    assert set().union(*read.values()) <= CUR1.keys()
