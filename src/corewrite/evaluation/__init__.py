"""The one builder of what the gate looks at."""
