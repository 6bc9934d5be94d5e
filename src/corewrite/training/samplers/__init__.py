"""What samples for the trainer: in this process, or a server."""
