"""Measuring rewriters on conversations: turns whose own passage is known, ranked by the rewrite alone and fused."""
