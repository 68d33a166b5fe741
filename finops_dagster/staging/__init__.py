"""Verified local copies of the vendor's files."""
