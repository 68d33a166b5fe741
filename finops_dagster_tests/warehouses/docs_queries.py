"""The queries of docs/warehouses.md, which the test server of each warehouse runs."""

from __future__ import annotations

import re
from datetime import date

from finops_dagster.demo.export import BillVersion, Layout, write_version
from finops_dagster_tests.project import ROOT, Project


def docs_queries(section: str) -> list[str]:
    """Return the three queries of a warehouse's section."""
    page = (ROOT / "docs/warehouses.md").read_text()
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    sql_queries = re.findall(r"^```sql\n(.*?);\n```$", text, re.DOTALL | re.MULTILINE)
    assert len(sql_queries) == 3
    return sql_queries


def load_exports_of_queries(project: Project) -> None:
    """Load January 2026 into `aws_billing_data` as CUR v1, and into `aws_cur2`."""
    bill = BillVersion(date(2026, 1, 1), "v1", rows=200)
    for name, table, layout in (
        ("acme", "aws_billing_data", Layout()),
        ("cur2", "aws_cur2", Layout("cur2", "parquet")),
    ):
        export = {"name": name, "table": table, "export_name": name, "format": layout.format}
        write_version(project.source, "", name, bill, layout=layout)
        if name == "acme":
            project.export |= export
        else:
            project.more_exports.append({**project.export, **export})
        project.load("2026-01", export=name)
