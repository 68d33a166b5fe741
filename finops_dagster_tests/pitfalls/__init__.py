"""The ways in which real bills break pipelines, each run through all stages."""
