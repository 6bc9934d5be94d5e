"""See docs/architecture.md, serving."""
