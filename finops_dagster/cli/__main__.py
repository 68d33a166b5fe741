"""Run `finops` as `python -m finops_dagster.cli`."""

from finops_dagster.cli.app import main

main()
