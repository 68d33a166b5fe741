"""The format of FOCUS files, whatever provider and version of FOCUS they are of."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from finops_dagster.billing.columns import Sql, SqlType
from finops_dagster.sources.base import FixedFormat, every_cost_has_invoice
from finops_dagster.sources.focus import COSTS, FocusColumns

# The columns with numbers that Oracle adds, and a quantity of FOCUS 1.0-preview that it still has.
# https://github.com/oracle-samples/usage-reports-to-adw/tree/main/focus2adw
_ORACLE_NUMBERS = (
    "usagequantity oci_unitpriceoverage oci_billedquantityoverage oci_costoverage "
    "oci_attributedusage oci_attributedcost"
).split()


class FocusFilesFormat(FocusColumns, FixedFormat):
    """FOCUS of every version: each column keeps the name that the provider gave it.

    So FOCUS 1.0-preview's `Provider` and the later `ProviderName` are two columns.
    """

    vendor = "focus-files"
    name = "focus"
    null_words: tuple[str, ...] = ("NULL", "null")  # as in the sample data of the specification
    time_formats: tuple[str, ...] = ()
    expects_one_currency = True
    money = frozenset({*COSTS, "oci_costoverage"})
    known_types: ClassVar[dict[str, SqlType]] = {
        **FocusColumns.known_types,
        **dict.fromkeys(_ORACLE_NUMBERS, SqlType.MONEY),
    }

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return an SQL aggregate that is true if every row with a cost has an invoice id.

        It is false if no row has an id. None if `columns`, those of the table, lack the cost or the
        id.
        """
        return every_cost_has_invoice(self.cost, self.invoice, columns)
