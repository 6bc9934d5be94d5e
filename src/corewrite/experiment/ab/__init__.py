"""A/B launches: planning and reading."""
