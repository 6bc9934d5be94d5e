"""Tuning a stage of the fusion spec on requests of a log."""
