"""`python -m finops_dagster.cli` is `finops`."""

from finops_dagster.cli.app import main

main()
