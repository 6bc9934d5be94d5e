"""See docs/architecture.md, experiment."""
