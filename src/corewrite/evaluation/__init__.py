"""The one builder of the gate's `Evaluation`."""
