"""One FOCUS table over every export: the mappings, the rules, and what others say of them."""
