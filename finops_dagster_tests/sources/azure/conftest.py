import pytest

from finops_dagster_tests.project import Project


@pytest.fixture
def project(project: Project) -> Project:
    """Return a project whose only export is Azure's FOCUS, in a folder."""
    project.export = {
        "name": "contoso",
        "vendor": "azure",
        "format": "focus",
        "source": f"file://{project.source}",
        "start_month": "2023-09",
        "table": "azure",
    }
    return project
