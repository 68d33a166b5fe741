"""The ways in which real bills break pipelines, each loaded through the whole chain."""
