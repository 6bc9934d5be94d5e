"""The demo: the whole loop on the simulated platform, once."""
