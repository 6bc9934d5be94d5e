"""Longitudinal simulation: months of weekly cycles on the simulated platform, with and without a gate."""
