"""Input that no vendor would deliver, by mistake or on purpose: loaded exactly or refused."""
