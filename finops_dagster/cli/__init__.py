"""The `finops` command: for people at a terminal and for CI. What it does, the Dagster UI shows."""
