"""See docs/architecture.md, gate."""
