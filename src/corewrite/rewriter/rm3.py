"""RM3 query expansion: a query and the words of what it finds (Lavrenko & Croft 2001; Abdul-Jaleel et al. 2004)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from corewrite.domain import words

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class RelevanceFeedback:
    """Expands queries by the words of the engine's own first results.

    The parameters are the usual ones of the literature and of Anserini's baselines: ten documents, ten terms, half of the
    weight for the query, and no term that more than a tenth of the documents hold.

    Args:
        text_of: Text of a document by its row.
        documents: How many there are.
        num_documents: Feedback documents of each query.
        num_terms: Terms of the relevance model that are kept.
        query_weight: Weight of the query's own model, in (0, 1].
        max_document_share: Terms that a larger share of the documents hold are left out of the relevance model.
    """

    def __init__(
        self,
        text_of: Callable[[int], str],
        documents: int,
        *,
        num_documents: int = 10,
        num_terms: int = 10,
        query_weight: float = 0.5,
        max_document_share: float = 0.1,
    ) -> None:
        self._text_of = text_of
        self._num_documents, self._num_terms, self._query_weight = num_documents, num_terms, query_weight
        held = Counter(word for row in range(documents) for word in set(words(text_of(row))))
        self._common = {word for word, count in held.items() if count > max_document_share * documents}

    def weights(self, query: str, rows: IntArray, scores: FloatArray) -> dict[str, float]:
        """Weight of each word of the expanded query, summing to 1 where anything was found; the heaviest first.

        Args:
            query: As typed.
            rows: Its first results, best first, [documents], -1 pads.
            scores: Their scores, proportional to the likelihood of the query under each, [documents].
        """
        top = [(int(row), float(score)) for row, score in zip(rows, scores, strict=True) if row >= 0 and score > 0]
        top = top[: self._num_documents]
        whole = sum(score for _, score in top)
        model: dict[str, float] = defaultdict(float)
        for row, score in top:
            counts = Counter(word for word in words(self._text_of(row)) if word not in self._common)
            length = counts.total()
            for word, count in counts.items():
                model[word] += score / whole * count / length
        kept = sorted(model.items(), key=lambda item: (-item[1], item[0]))[: self._num_terms]
        mass = sum(weight for _, weight in kept)
        own = Counter(words(query))
        share = self._query_weight if kept else 1.0
        found = {word: share * count / own.total() for word, count in own.items()}
        for word, weight in kept:
            found[word] = found.get(word, 0.0) + (1 - share) * weight / mass
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def rewrite(self, query: str, rows: IntArray, scores: FloatArray) -> str | None:
        """The query and its strongest feedback terms, for rankers that take text.

        A text has no weights, so the query's share of it stands for its weight: of ten terms as many are added, the heaviest
        first, as make that share `query_weight`; at one half, as many as the query has words. None where nothing is added.
        """
        own = set(words(query))
        room = round(len(own) * (1 - self._query_weight) / self._query_weight)
        added = [word for word in self.weights(query, rows, scores) if word not in own][:room]
        return f"{query} {' '.join(added)}" if added else None


def expand(feedback: RelevanceFeedback, queries: Sequence[str], rows: IntArray, scores: FloatArray) -> list[str | None]:
    """RM3 rewrites of queries from their first results, rows and scores [queries, documents]; equal queries once."""
    known: dict[str, str | None] = {}
    for query, found, weights in zip(queries, rows, scores, strict=True):
        if query not in known:
            known[query] = feedback.rewrite(query, found, weights)
    return [known[query] for query in queries]
