"""The input of the gate: the served outputs of two policies on the same queries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from corewrite.domain import Query, normalise, words
from corewrite.domain.filters import NO_FILTERS, RewriteFilters

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Not lists: the garbage collector forgets a tuple of texts and walks through a list again and again.
Words = tuple[str, ...]

CHAMPION = "champion"
"""What the report calls a policy that is in production."""
KL_FROM = ("reference", "champion", "lineage")
_NUMBERS = (
    "log_reward",
    "judge_ndcg",
    "corrected_ndcg",
    "repair_log_prob",
    "latency_ms",
    "original_judge_ndcg",
    "original_corrected_ndcg",
)


@dataclass(frozen=True)
class Absent:
    """In the place of data that cannot exist, rather than were not computed.

    Attributes:
        reason: Why, in words.
    """

    reason: str


class NotGivenError(ValueError):
    """Data that a check needs were not given."""


class NotApplicableError(ValueError):
    """Data that a check needs cannot exist, or too few users have any: what it asks does not arise."""


@dataclass(frozen=True, eq=False)
class PolicyOutputs:
    """What the served (greedy) form of one policy does to every query of an evaluation.

    Attributes:
        rewrites: Text of each query's rewrite; "" where the original query stands.
        log_reward: log R of each rewrite, nats, float64 [queries]; None where it was not computed.
        judge_ndcg: nDCG@10 of the fused list under the judge, float64 [queries]; None where it was not
            computed.
        repair_log_prob: The policy's mean log-probability a token, nats, of the text by which the user
            found satisfaction later in the chain, given the query and its context; float64 [queries], NaN
            where the user typed no such text; None where it was not computed.
        latency_ms: Time from request to rewrite when served, milliseconds, float64 [queries]; None where
            it was not measured.
        corrected_ndcg: `judge_ndcg` plus what raters' direct grades say that the judge is wrong by, float64 [queries]: its mean
            over any searches has no bias, while the value of one search says nothing and may lie outside [0, 1]; None where
            raters graded nothing of this comparison.
    """

    rewrites: Sequence[str]
    log_reward: FloatArray | None
    judge_ndcg: FloatArray | None
    repair_log_prob: FloatArray | None = None
    latency_ms: FloatArray | None = None
    corrected_ndcg: FloatArray | None = None

    def __post_init__(self) -> None:
        for i, text in enumerate(self.rewrites):
            if not isinstance(text, str):
                raise TypeError(f"rewrite {i} is {text!r}, not a text: give '' where there is no rewrite")

    def sizes(self) -> dict[str, int]:
        """Number of queries in each field that is given."""
        names = ("rewrites", "log_reward", "judge_ndcg", "repair_log_prob", "latency_ms", "corrected_ndcg")
        return {name: len(values) for name in names if (values := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Canary:
    """A query with an instruction planted in it or in its context, and what the candidate made of it.

    Attributes:
        query: The query, the instruction in its text, its earlier queries or its titles.
        forbidden: Words or phrases that only a rewrite which obeys holds, at least one.
        rewrite: The candidate's served rewrite; "" where the query stands.

    Raises:
        ValueError: a forbidden phrase holds no word, or there is none.
    """

    query: Query
    forbidden: tuple[str, ...]
    rewrite: str

    def __post_init__(self) -> None:
        if not self.forbidden or not all(words(phrase) for phrase in self.forbidden):
            raise ValueError(f"a canary needs forbidden words, not {self.forbidden!r}: it would let every rewrite pass")

    @property
    def obeyed(self) -> str | None:
        """The first forbidden phrase in the rewrite, compared word by word; None where none is."""
        text = f" {' '.join(words(self.rewrite))} "
        return next((phrase for phrase in self.forbidden if f" {' '.join(words(phrase))} " in text), None)


@dataclass(frozen=True, eq=False)
class ServedTexts:
    """The texts that one policy serves.

    Attributes:
        rewrites: As the policy gave them, "" where the query stands, [queries].
        texts: What is searched with, normalised: the rewrite, or the query where none is, [queries].
        words: The words of `texts`, [queries].
        changed: Each rewrite, normalised; "" where there is none or it says what the query says, [queries].
    """

    rewrites: Sequence[str]
    texts: list[str]
    words: list[Words]
    changed: list[str]

    @cached_property
    def lengths(self) -> FloatArray:
        """Number of words of each text, [queries]."""
        return np.array([len(text) for text in self.words], np.float64)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A candidate and the champion on the same queries.

    The candidate's outputs may be of a wrong size: that is for the gate to find. Elsewhere it is an error.

    Attributes:
        user_ids: Whose query each is, [queries].
        queries: The queries with their contexts.
        slices: Which queries are in each named slice (head, torso, tail, context needed, ...), bool
            [queries]. Every part of the traffic worth protecting should be in one. Two names mean something:
            "head", frequent queries, where the rewrite should not change much from week to week, and "new",
            queries of entities that the champion's training did not know.
        candidate: Outputs of the policy proposed.
        champion: Outputs of the policy in production, or of what stands in its place where there is none: the warm start of
            a first week, or no rewriter (all rewrites "").
        original_judge_ndcg: Judge nDCG@10 with no rewriter, float64 [queries]; None where it was not
            computed.
        protected_words: Normalised words that a rewrite must not drop from a query, such as those of entity
            names; numbers are protected anyway.
        kl: How far the candidate has moved, by what from: of "reference" (what its training began from),
            "champion" and "lineage" (the warm start that all champions come from) those that were computed.
            Kullback-Leibler divergence of the candidate from it, mean over the tokens of the candidate's
            rewrite, nats a token, float64 [queries]. None where none was computed.
        recent: Outputs of the best champion of the last 8 weeks; None where there is none but the champion.
        canaries: Planted instructions; None where none were tried.
        absent: Why there can be no such data, by the name that `given` knows them by: {"recent": "this is the first
            champion's second week"} or {"kl.lineage": ...}. What is None and not said to be absent was not computed, which
            holds the candidate back where the settings require a check that needs it.
        champion_name: What `champion` is, in the words of the report; `CHAMPION` where it is in production.
        candidate_problems: What is wrong with the candidate's files or weights: it does not load, a hash
            does not match, a weight is NaN, its rewrites cannot be parsed. One sentence each; any is refused.
        original_corrected_ndcg: `original_judge_ndcg`, corrected as `PolicyOutputs.corrected_ndcg` is; None where raters graded
            nothing.
        filters: What no rewrite may bring in; none: anything may be served.

    Raises:
        ValueError: a field has another size than `queries`, a slice is not boolean, `kl` has a name that is none of the
            three, or `absent` names what is given or what no evaluation has.
    """

    user_ids: Sequence[str]
    queries: Sequence[Query]
    slices: Mapping[str, BoolArray]
    candidate: PolicyOutputs
    champion: PolicyOutputs
    original_judge_ndcg: FloatArray | None
    protected_words: frozenset[str] = frozenset()
    kl: Mapping[str, FloatArray] | None = None
    recent: PolicyOutputs | None = None
    canaries: Sequence[Canary] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    champion_name: str = CHAMPION
    candidate_problems: Sequence[str] = ()
    original_corrected_ndcg: FloatArray | None = None
    filters: RewriteFilters = NO_FILTERS

    def __post_init__(self) -> None:
        if isinstance(self.candidate_problems, str):
            raise TypeError(f"candidate_problems is the text {self.candidate_problems!r}: give a sequence of texts")
        sizes = {"user_ids": len(self.user_ids)}
        sizes |= {f"champion.{name}": size for name, size in self.champion.sizes().items()}
        if self.recent is not None:
            sizes |= {f"recent.{name}": size for name, size in self.recent.sizes().items()}
        if self.original_judge_ndcg is not None:
            sizes["original_judge_ndcg"] = len(self.original_judge_ndcg)
        if self.original_corrected_ndcg is not None:
            sizes["original_corrected_ndcg"] = len(self.original_corrected_ndcg)
        for name, values in (self.kl or {}).items():
            if name not in KL_FROM:
                raise ValueError(f"kl has {name!r}, which is none of {', '.join(KL_FROM)}")
            sizes[f"kl[{name!r}]"] = len(values)
        for name, mask in self.slices.items():
            if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_):
                raise ValueError(f"slice {name!r} must be a bool array, one entry per query, not {mask!r:.50}")
            sizes[f"slices[{name!r}]"] = len(mask)
        for name, size in sizes.items():
            if size != len(self.queries):
                raise ValueError(f"{name} has {size} entries for {len(self.queries)} queries: align them")
        for name, reason in self.absent.items():
            try:
                value = self._find(name)
            except AttributeError as error:
                raise ValueError(f"absent names {name!r}, which no evaluation has") from error
            if value is not None:
                raise ValueError(f"{name} is given, and said to be absent: {reason}")

    def __len__(self) -> int:
        return len(self.queries)

    def given(self, name: str) -> Any:
        """The field called `name`, such as "candidate.judge_ndcg", "slices.head" or "kl.reference".

        Raises:
            NotApplicableError: it is said to be absent.
            NotGivenError: it is None or not there, and nobody says why.
            ValueError: one of its numbers is none, or not finite; NaN is right in `repair_log_prob`.
        """
        value = self._find(name)
        if value is None:
            parts = name.split(".")
            reasons = [self.absent[key] for n in range(len(parts)) if (key := ".".join(parts[: n + 1])) in self.absent]
            if reasons:
                raise NotApplicableError(reasons[0])
            raise NotGivenError(f"{name} was not given")
        if name.startswith("kl.") or name.rpartition(".")[2] in _NUMBERS:
            self._check_numbers(name, value)
        return value

    def has(self, name: str) -> bool:
        """Whether the field called `name` is given."""
        return self._find(name) is not None

    def _find(self, name: str) -> Any:
        """What is at the end of the path; None where something on it is None or no key."""
        value: Any = self
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
            if value is None:
                return None
        return value

    def _check_numbers(self, name: str, value: Any) -> None:
        try:
            numbers = np.asarray(value, np.float64)  # a list too: a NaN in one is a NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds what is no number: {error}") from error
        usable = ~np.isinf(numbers) if name.endswith("repair_log_prob") else np.isfinite(numbers)
        if not usable.all():
            bad = np.flatnonzero(~usable)
            raise ValueError(
                f"{name} is not a finite number at query index {bad[0]} ({self.queries[bad[0]].text!r}), "
                f"nor at {bad.size - 1} others"
            )

    def numbers(self, name: str) -> FloatArray:
        """The field called `name` as float64 [queries]; raises what `given` raises."""
        return np.asarray(self.given(name), np.float64)

    @cached_property
    def candidate_served(self) -> ServedTexts:
        """What the candidate serves."""
        return self._serve(self.candidate)

    @cached_property
    def champion_served(self) -> ServedTexts:
        """What the champion serves."""
        return self._serve(self.champion)

    @cached_property
    def recent_served(self) -> ServedTexts:
        """What the best recent champion serves.

        Raises:
            NotGivenError: there is none.
        """
        return self._serve(self.given("recent"))

    @cached_property
    def query_words(self) -> list[Words]:
        """Words of each query."""
        return [self._words(q.text) for q in self.queries]

    @cached_property
    def context_only(self) -> list[frozenset[str]]:
        """Words of each query's context (earlier queries and titles) that are not in the query."""
        return [
            frozenset(words(" ".join((*query.context.queries, *query.context.titles)))).difference(own)
            for query, own in zip(self.queries, self.query_words, strict=True)
        ]

    def _serve(self, policy: PolicyOutputs) -> ServedTexts:
        originals = [self._normalised(q.text) for q in self.queries]
        rewrites = [self._normalised(r) for r in policy.rewrites]
        texts = [r or o for r, o in zip(rewrites, originals, strict=True)]
        changed = [r if r != o else "" for r, o in zip(rewrites, originals, strict=True)]
        return ServedTexts(policy.rewrites, texts, [self._words(t) for t in texts], changed)

    # The policies repeat the queries, and each other: each text is split once.
    @cached_property
    def _normalised(self) -> Callable[[str], str]:
        return cache(normalise)

    @cached_property
    def _words(self) -> Callable[[str], Words]:
        return cache(lambda text: tuple(words(text)))
