"""What no vendor would deliver and somebody may: loaded exactly, or refused in one clear line."""
