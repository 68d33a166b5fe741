"""Cloud cost exports as Dagster assets: one partition a billing month, exact to the last digit."""
