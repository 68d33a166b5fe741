"""Servers that the tests start themselves, in place of a vendor's."""
