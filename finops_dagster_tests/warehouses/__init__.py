"""One suite over every warehouse: what a month must be in each of them."""
