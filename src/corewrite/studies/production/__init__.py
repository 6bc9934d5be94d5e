"""A team in production on the simulated platform: served over HTTP, logged, mined, trained, gated."""
