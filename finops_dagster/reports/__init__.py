"""Reports: the figures of the bill, computed from the charges in the lake, and how they look."""
