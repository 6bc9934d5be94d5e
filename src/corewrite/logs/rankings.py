"""What production's own engine wrote of a ranking into its UBI log, for checking a fusion spec on it.

A search's line may carry `query_attributes.ranking`, each list aligned with `query_response_hit_ids`:

    {"signals": {NAME: [number or null, ...]},           # each signal of the spec, under the query
     "rewrite_signals": {NAME: [...]},                   # the same under the rewrite; absent where none was used
     "factors": {"original.NAME": [...], "rewrite.NAME": [...]},
     "scores": [...]}                                    # what the documents were ranked by
"""

import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

Numbers = tuple[FiniteFloat | None, ...]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class LoggedRanking(_Record):
    """`query_attributes.ranking`; every list is as long as the hits. Null: that document has no such number.

    Attributes:
        signals: Under the query, by name.
        rewrite_signals: Under the rewrite, by name; None where no rewrite was used, and a signal that is not there was absent.
        factors: By `original.NAME` and `rewrite.NAME`, as production computed them; may be empty.
        scores: Final scores, the products of the factors; None where they were not logged.
    """

    signals: Mapping[str, Numbers]
    rewrite_signals: Mapping[str, Numbers] | None = None
    factors: Mapping[str, tuple[FiniteFloat, ...]] = Field(default_factory=dict)
    scores: tuple[FiniteFloat, ...] | None = None


class _Attributes(_Record):
    ranking: LoggedRanking


class RankingLine(_Record):
    """A search with its ranking.

    Attributes:
        query_response_hit_ids: Displayed documents, best first.
        query_attributes: Holds the ranking.
    """

    query_response_hit_ids: tuple[str, ...] = Field(min_length=1)
    query_attributes: _Attributes

    @property
    def ranking(self) -> LoggedRanking:
        """The ranking."""
        return self.query_attributes.ranking

    @model_validator(mode="after")
    def _aligned(self) -> "RankingLine":
        found = self.ranking
        lists: dict[str, tuple[float | None, ...]] = {f"signals.{n}": v for n, v in found.signals.items()}
        lists |= {f"rewrite_signals.{n}": v for n, v in (found.rewrite_signals or {}).items()}
        lists |= {f"factors.{n}": v for n, v in found.factors.items()}
        if found.scores is not None:
            lists["scores"] = found.scores
        for name, values in lists.items():
            if len(values) != len(self.query_response_hit_ids):
                raise ValueError(f"ranking.{name} has another length than query_response_hit_ids")
        if found.scores is None and not found.factors:
            raise ValueError("ranking has neither scores nor factors: there is nothing to compare with")
        return self


def read_ranking(line: bytes) -> RankingLine | None:
    """A line of a log as a record; None where it carries no `query_attributes.ranking`.

    Raises:
        ValueError: what it carries is not as described above; the message says where.
    """
    try:
        attributes = json.loads(line)["query_attributes"]
        if "ranking" not in attributes or "served" in attributes:
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    try:
        return RankingLine.model_validate_json(line)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"] if not isinstance(part, int))  # one reason, not one a document
        raise ValueError(f"{where or 'line'}: {found['msg'].removeprefix('Value error, ')}") from error
