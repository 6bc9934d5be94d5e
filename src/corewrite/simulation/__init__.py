"""See docs/architecture.md, simulation."""
