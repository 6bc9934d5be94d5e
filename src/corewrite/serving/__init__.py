"""The live service: HTTP, one rewriter process per policy, caches, the log of what was served."""
