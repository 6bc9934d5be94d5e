"""What fills the inputs of a model, and what makes probabilities of its outputs."""

from typing import Any

from pydantic import Field, model_validator

from corewrite.domain import Settings


class CalibrationSettings(Settings):
    """From a model's number x to a probability: sigmoid(slope x + offset)."""

    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Above 0."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """Any number."""


class InputSettings(Settings):
    """One input of a model, and what it is filled with. A plain text stands for `from` alone."""

    source: str = Field(alias="from", pattern=r"^(text|document|document\.[^\s#]+(#count)?)$")
    """`text`: the query or rewrite. `document`: title and text joined. `document.id`, or `document.COLUMN` for any column of
    the documents: text, number, vector, or list of vectors, which is padded with zeros; `document.COLUMN#count` is how many
    vectors each document has."""
    missing: float | None = Field(default=None, allow_inf_nan=False)
    """Stands where a document has no number or vector; None: such a document has no score."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value


Inputs = dict[str, InputSettings]
