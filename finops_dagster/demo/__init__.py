"""Deterministic example bills, laid out as the cloud vendors write them."""
