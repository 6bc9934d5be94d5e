"""See docs/architecture.md, fusion."""
