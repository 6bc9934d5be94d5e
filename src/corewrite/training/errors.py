"""What can go wrong with the files of a run."""

RESTORE = "restore it, or remove the folder and train anew"
"""What to do with a damaged file of a run."""


class ResumeError(RuntimeError):
    """A run folder that cannot be continued with what was given."""


class CheckpointError(RuntimeError):
    """A file of the run that could not be written; the last checkpoint is whole."""


class NotBitwiseWarning(UserWarning):
    """A run resumed on another machine or other libraries: right, but not to the last bit."""
