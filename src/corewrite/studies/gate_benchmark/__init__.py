"""Decisions of the gate on candidates whose true effect is known."""
