"""See docs/architecture.md, registry."""
