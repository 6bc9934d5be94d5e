"""The progressive rollout after a promote, and the stop that rolls it back."""
