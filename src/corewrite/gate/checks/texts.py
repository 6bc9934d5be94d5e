"""Checks of the served texts, query by query."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from corewrite.domain import drops_protected
from corewrite.gate.check import MeanCheck, TextCheck, register
from corewrite.gate.evaluation import Evaluation, ServedTexts, Words
from corewrite.gate.ratio_of_sums import EVENT, SHARE
from corewrite.gate.text_faults import faults, foreign_scripts

FloatArray = npt.NDArray[np.float64]

_GENERIC = 20


@register
class Copying(TextCheck):
    """Mean share of served words that are in the context but not in the query; 0 where the query stands."""

    name = "copying"
    question = "Is no more copied from the context?"
    gain_range = SHARE
    sign = -1
    default_margin = 0.10
    mitigation = "wider_pair_margin"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """Share of words."""
        pairs = zip(served.words, evaluation.context_only, strict=True)
        return np.array([sum(w in context for w in text) / len(text) if text and context else 0.0 for text, context in pairs])


@register
class Similarity(TextCheck):
    """Mean Jaccard similarity of the character trigrams of the words of served text and query; 1 where the query stands.

    Characters, so that a mended spelling stays similar; a rewriter that wanders off does not. Of words, so that their order,
    which changes nothing of what is asked for, does not count.
    """

    name = "similarity"
    question = "Do rewrites stay as close to the query?"
    gain_range = SHARE
    excused_by = "judge_ndcg"
    default_margin = 0.10
    mitigation = "wider_pair_margin"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """Jaccard similarity."""
        return np.array([_jaccard(a, b) for a, b in zip(served.words, evaluation.query_words, strict=True)])


def _jaccard(a: Words, b: Words) -> float:
    first, second = _trigrams(a), _trigrams(b)
    together = len(first | second)
    return len(first & second) / together if together else 1.0


def _trigrams(text: Words) -> set[str]:
    padded = [f" {word} " for word in text]
    return {word[i : i + 3] for word in padded for i in range(len(word) - 2)}


@register
class EntitiesDropped(TextCheck):
    """Share of searches whose text drops a number or a protected word that the query has."""

    name = "entities_dropped"
    question = "Are numbers and entities kept?"
    gain_range = EVENT
    sign = -1
    default_margin = 0.02
    mitigation = "wider_pair_margin"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """1 where one is dropped."""
        pairs = zip(evaluation.query_words, served.words, strict=True)
        return np.array([float(text != own and drops_protected(own, text, evaluation.protected_words)) for own, text in pairs])


@register
class EmptyRate(TextCheck):
    """Share of searches for which the policy gives no rewrite."""

    name = "empty_rate"
    question = "Does the policy fall silent no more often?"
    gain_range = EVENT
    sign = -1
    default_margin = 0.15
    mitigation = "higher_sft_weight"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """1 where there is none."""
        return np.array([float(not r.strip()) for r in served.rewrites])


@register
class NoOpRate(TextCheck):
    """Share of searches for which the rewrite says what the query says, up to case and blanks."""

    name = "no_op_rate"
    question = "Does the policy repeat the query no more often?"
    gain_range = EVENT
    sign = -1
    default_margin = 0.15
    mitigation = "stronger_kl"  # imitation of what was best would leave still more queries alone: they often are

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """1 where the query is repeated."""
        return np.array([float(bool(r.strip()) and not c) for r, c in zip(served.rewrites, served.changed, strict=True)])


@register
class MalformedRate(TextCheck):
    """Share of searches whose rewrite is no clean search text, in a way that its query is not.

    See `corewrite.gate.text_faults.faults`; more words than `word_limit` count too.
    """

    name = "malformed_rate"
    question = "Are no more rewrites malformed?"
    gain_range = EVENT
    sign = -1
    default_margin = 0.01
    mitigation = "higher_sft_weight"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """1 where malformed."""
        limit, found = self.config.word_limit, np.zeros(len(evaluation))
        for i, (rewrite, text, own) in enumerate(zip(served.rewrites, served.words, evaluation.query_words, strict=True)):
            long = len(text) > limit and len(own) <= limit
            found[i] = bool(rewrite) and (long or bool(faults(rewrite) - faults(evaluation.queries[i].text)))
        return found


@register
class WrongScriptRate(TextCheck):
    """Share of searches whose rewrite has a letter of a script that neither query nor context is written in."""

    name = "wrong_script_rate"
    question = "Are no more rewrites in another script?"
    gain_range = EVENT
    sign = -1
    default_margin = 0.02
    mitigation = "higher_sft_weight"

    def of(self, served: ServedTexts, evaluation: Evaluation) -> FloatArray:
        """1 where a script is foreign."""
        pairs = zip(served.rewrites, evaluation.queries, strict=True)
        return np.array([float(bool(r) and bool(foreign_scripts(r, q))) for r, q in pairs])


@register
class GenericWords(MeanCheck):
    """Mean share of served words that are generic: of the 20 words that rewrites add most often.

    A word is added where neither query nor context has it. The 20 are those that the two policies together
    add most often, so that candidate and champion are measured by the same list. "best", "video", "2024" at
    the end of everything leave the commonest *rewrite* rare and bigrams with the query's last word distinct.
    """

    name = "generic_words"
    question = "Are no more generic words added?"
    gain_range = SHARE
    sign = -1
    excused_by = "judge_ndcg"
    default_margin = 0.05
    mitigation = "higher_sft_weight"

    def per_query(self, evaluation: Evaluation) -> tuple[FloatArray, FloatArray]:
        """Share of words."""
        sides = evaluation.candidate_served, evaluation.champion_served
        added = [_added(side, evaluation) for side in sides]
        counts = Counter(w for side in added for new in side for w in new)
        generic = {w for w, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_GENERIC]}
        candidate, champion = (
            np.array([sum(w in generic for w in new) / max(1, len(text)) for new, text in zip(side, served.words, strict=True)])
            for side, served in zip(added, sides, strict=True)
        )
        return candidate, champion


def _added(served: ServedTexts, evaluation: Evaluation) -> list[list[str]]:
    """Words of each text that neither its query nor its context has."""
    rows = zip(served.words, evaluation.query_words, evaluation.context_only, strict=True)
    return [[w for w in text if w not in own and w not in context] if text != own else [] for text, own, context in rows]
