"""A/B launches: planned before, read after."""
