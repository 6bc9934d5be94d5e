"""Studies on the simulated platform: the whole system where the truth is known."""
