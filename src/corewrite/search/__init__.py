"""See docs/architecture.md, search."""
