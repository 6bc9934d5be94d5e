"""Sampling engines: in this process, or an OpenAI-compatible server."""
