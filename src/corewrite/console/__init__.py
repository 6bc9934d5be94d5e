"""See docs/architecture.md, console."""
