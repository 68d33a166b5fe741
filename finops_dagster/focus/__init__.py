"""One FOCUS table over every export: the specification, the mappings, the rules."""
