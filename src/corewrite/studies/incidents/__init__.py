"""Incidents: what can go wrong in production, week by week, with a gate and without one, against healthy twins."""
