"""Where charges come from: one folder a vendor."""
