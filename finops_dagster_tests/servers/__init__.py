"""Servers that the tests start themselves, in place of those of vendors."""
