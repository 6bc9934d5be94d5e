"""See docs/architecture.md, pipeline."""
