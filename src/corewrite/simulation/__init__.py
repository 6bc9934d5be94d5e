"""The simulated short-video platform: world, users with hidden intents, traffic and logs."""
