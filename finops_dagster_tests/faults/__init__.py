"""Faults injected for real, at random moments: one module a kind, and what must hold after each."""
