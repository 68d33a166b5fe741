"""The `finops` command. Its runs appear in the Dagster UI too."""
