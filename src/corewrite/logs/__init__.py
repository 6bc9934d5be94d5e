"""See docs/architecture.md, logs."""
