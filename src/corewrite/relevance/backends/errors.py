"""What can go wrong between us and a relevance model that is not ours."""


class ScorerUnavailableError(ConnectionError):
    """The model could not be reached in time. An `OSError`, so training's scoring calls again (`training.scoring`)."""


class ScorerMismatchError(ValueError):
    """What answers is not the model that was asked for, or does not speak as agreed: another try cannot help."""


class ScoreError(ValueError):
    """The score of one document is no probability; the message names the document."""
