"""What a bill is: months, manifests, columns, exact money. Knows no Dagster and no cloud client."""
