"""Studies on the simulated platform: what the whole system comes to where the truth is known."""
