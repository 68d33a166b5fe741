"""The Azure bill of the example company: Cost Management's FOCUS export, version 1.2-preview."""
