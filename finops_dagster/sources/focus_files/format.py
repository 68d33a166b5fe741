"""The format of FOCUS files, whatever provider and version of FOCUS they are of."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from finops_dagster.billing.columns import Sql, SqlType, flat_name
from finops_dagster.sources.base import every_cost_has_invoice
from finops_dagster.sources.focus import COSTS, FocusColumns

# The columns with numbers that Oracle adds, and a quantity of FOCUS 1.0-preview that it still has.
# https://github.com/oracle-samples/usage-reports-to-adw/tree/main/focus2adw
_ORACLE_NUMBERS = (
    "usagequantity oci_unitpriceoverage oci_billedquantityoverage oci_costoverage "
    "oci_attributedusage oci_attributedcost"
).split()


class FocusFilesFormat(FocusColumns):
    """FOCUS of every version: each column keeps the name that the provider gave it.

    So FOCUS 1.0-preview's `Provider` and the later `ProviderName` are two columns.
    """

    vendor = "focus-files"
    name = "focus"
    null_words: tuple[str, ...] = (
        "NULL",
        "null",
    )  # FOCUS's sample data has NULL
    time_formats: tuple[str, ...] = ()
    expects_one_currency = True
    money = frozenset({*COSTS, "oci_costoverage"})
    known_types: ClassVar[dict[str, SqlType]] = {
        **FocusColumns.known_types,
        **dict.fromkeys(_ORACLE_NUMBERS, SqlType.MONEY),
    }

    def column(self, header: str) -> str:
        """Return the header in lower case."""
        return flat_name(header)

    def is_user_defined(self, header: str) -> bool:  # noqa: ARG002 the answer is always the same
        """Return False: providers choose the headers, and tags are keys of a map."""
        return False

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:  # noqa: ARG002
        """Return None: headers in CSV and in Parquet are the same."""
        return None

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:  # noqa: ARG002
        """Return the type that FOCUS documents; None for a column of the provider's own."""
        return self.known_types.get(self.column(header))

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return SQL that is true if every cost has an invoice id, where there is InvoiceId."""
        return every_cost_has_invoice(self.cost, self.invoice, columns)
