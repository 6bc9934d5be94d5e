"""Longitudinal simulation: months of weekly cycles on the simulated platform, with a gate, without one, never retrained."""
