"""Real faults, injected at random moments, and what must hold after each of them."""
