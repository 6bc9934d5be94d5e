"""See docs/architecture.md, demo."""
