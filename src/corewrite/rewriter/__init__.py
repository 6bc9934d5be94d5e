"""See docs/architecture.md, rewriter."""
