"""See docs/architecture.md, relevance."""
