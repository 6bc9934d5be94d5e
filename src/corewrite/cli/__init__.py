"""See docs/architecture.md, cli."""
