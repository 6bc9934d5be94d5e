"""The steps of a weekly cycle."""
