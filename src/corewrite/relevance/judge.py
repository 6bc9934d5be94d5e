"""The judge: gradient-boosted trees on hand-made features, trained on its own noisy labels.

One of the features is learnt from the same labels: how well words of the query go with words of the document (a ridge
regression on crossed words, cross-fitted by query so that the trees do not take its memory for knowledge). Without it a judge
that counts matching words punishes every list that was found by a better word than the user's. For the same reason a word that
no document holds is read as the known one that is most like it.

Another model family than the bundled relevance model, other labels, and it sees the context: it grades documents for what
(query, context) most likely means, never for a rewrite. Training never sees it; the gate and the reports do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.stats import spearmanr

from corewrite.domain import Context, Documents, Query, hash_share, words
from corewrite.domain.documents import load_prior
from corewrite.domain.extras import from_extra
from corewrite.relevance.judged_documents import JudgedDocuments
from corewrite.relevance.nearest_words import NearestWords
from corewrite.relevance.protocol import HIGHEST_GRADE, Judge, JudgeReport, Labels, calibration_error

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_CROSSES = 2**18

FEATURES = (
    "query_words_matched",
    "query_words_missed",
    "query_match_idf",
    "query_trigram",
    "query_picture",
    "last_query_idf",
    "last_query_trigram",
    "queries_idf",
    "last_title_idf",
    "titles_idf",
    "titles_picture",
    "query_words",
    "query_rarity",
    "prior",
    "crossed_words",
)


class TreeJudge(Judge):
    """Grades documents for (query, context); see `JudgedDocuments` for what it holds of many."""

    def __init__(self, documents: Documents) -> None:
        self._documents, self._known = documents, JudgedDocuments(documents)
        self._nearest = NearestWords(sorted(self._known.word_index.vocabulary_))
        self._crossed: list[Ridge] = []
        self._model: HistGradientBoostingRegressor | None = None

    def fit(self, labels: Labels, *, seed: int) -> JudgeReport:
        """Learn from `labels`; a fifth of the queries is held out for the report.

        Raises:
            ValueError: fewer than 100 labels.
        """
        if len(labels.rows) < 100:
            raise ValueError(f"a judge needs at least 100 labels, there are {len(labels.rows)}")
        with from_extra("train", "the judge is fitted by scikit-learn"):
            from sklearn.ensemble import HistGradientBoostingRegressor
            from sklearn.linear_model import Ridge
        share = {q.key: hash_share(q.key, "judge-held-out") for q in labels.queries}
        place = np.array([share[q.key] for q in labels.queries])
        test, half = place < 0.2, place < 0.6
        read = {q.key: self._read(q) for q in labels.queries}
        queries = [read[q.key] for q in labels.queries]
        crosses = self._crosses([q.text for q in queries], labels.rows)
        self._crossed = [
            Ridge(alpha=3.0, solver="sparse_cg", tol=1e-3).fit(crosses[fold], labels.grades[fold])
            for fold in (~test & half, ~test & ~half)
        ]
        x = self._features(queries, labels.rows[:, None])[:, 0]
        # In training, each half's feature comes from the other half's regression alone.
        other = np.where(half, self._crossed[1].predict(crosses), self._crossed[0].predict(crosses))
        x[~test, -1] = other[~test]
        self._model = HistGradientBoostingRegressor(
            max_iter=160, learning_rate=0.08, max_leaf_nodes=31, min_samples_leaf=40, random_state=seed
        ).fit(x[~test], labels.grades[~test])
        predicted = self._model.predict(x[test])
        return JudgeReport(
            float(spearmanr(predicted, labels.grades[test]).statistic),
            float(np.abs(predicted - labels.grades[test]).mean()),
            int(test.sum()),
            calibration_error(predicted, labels.grades[test]),
        )

    def grade(self, queries: Sequence[Query], rows: IntArray) -> FloatArray:
        """Predicted grades in [0, 3] of catalogue `rows` [queries, documents] (-1 pads, grade 0), float64.

        Raises:
            RuntimeError: the judge was not fitted.
        """
        if self._model is None:
            raise RuntimeError("the judge has not been fitted: call fit first")
        out = np.zeros(rows.shape)
        for start in range(0, len(queries), 1000):
            block = rows[start : start + 1000]
            x = self._features([self._read(q) for q in queries[start : start + 1000]], block)
            grades = self._model.predict(x.reshape(-1, x.shape[-1])).reshape(block.shape)
            out[start : start + 1000] = np.where(block < 0, 0.0, np.clip(grades, 0.0, HIGHEST_GRADE))
        return out

    def _read(self, query: Query) -> Query:
        """The query as the judge reads it."""
        c = query.context
        return Query(self._nearest.read(query.text), Context(tuple(map(self._nearest.read, c.queries)), c.titles, c.locale))

    def _crosses(self, texts: Sequence[str], rows: IntArray) -> sp.csr_matrix:
        """Hashed (query word, document word) pairs of each text and catalogue row, sparse [pairs, 2**18]."""
        at = self._known.places(np.maximum(rows, 0))
        queries, documents = self._build_words(texts), self._known.word_ids[at]
        pair = (queries[:, :, None] * np.int64(1_000_003) + documents[:, None, :]) % np.int64(_CROSSES)
        used = (queries[:, :, None] > 0) & (documents[:, None, :] > 0)
        owner = np.broadcast_to(np.arange(len(rows))[:, None, None], pair.shape)
        return sp.csr_matrix((np.ones(int(used.sum())), (owner[used], pair[used])), shape=(len(rows), _CROSSES))

    def _build_words(self, texts: Sequence[str]) -> IntArray:
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return self._known.vocabulary.encode(list(distinct), width=6)[[distinct[text] for text in texts]]

    def _features(self, queries: Sequence[Query], rows: IntArray) -> FloatArray:
        """Features of each (query, document), float64 [queries, documents, features]."""
        n, d = rows.shape
        flat = np.maximum(rows, 0).ravel()
        owner = np.repeat(np.arange(n), d)
        known, at = self._known, self._known.places(flat)
        doc_words, doc_trigrams, pictures = known.words[at], known.trigrams[at], known.pictures[at]
        idf = known.word_index.idf_

        def matched(texts: list[str]) -> tuple[sp.csr_matrix, FloatArray]:
            matrix = known.word_index.transform(texts)
            # Both sides hold idf: the product would count it twice.
            return matrix, np.asarray(matrix.sign()[owner].multiply(doc_words).sum(1)).ravel()

        def trigram(texts: list[str]) -> FloatArray:
            return np.asarray(known.trigram_index.transform(texts)[owner].multiply(doc_trigrams).sum(1)).ravel()

        def looks(matrix: sp.csr_matrix) -> FloatArray:
            wanted = np.asarray(matrix.sign() @ known.word_pictures)
            return np.asarray(np.einsum("nv,nv->n", wanted[owner], pictures))

        texts = [q.text for q in queries]
        last_query = [q.context.queries[-1] if q.context.queries else "" for q in queries]
        all_queries = [" ".join(q.context.queries) for q in queries]
        last_title = [q.context.titles[-1] if q.context.titles else "" for q in queries]
        titles = [" ".join(q.context.titles) for q in queries]
        q_words, q_idf = matched(texts)
        hit = np.asarray(q_words.sign()[owner].multiply(doc_words.sign()).sum(1)).ravel()
        count = np.array([len(set(words(t))) for t in texts], np.float64)
        title_words, titles_idf = matched(titles)
        rarity = np.asarray(q_words.sign() @ idf).ravel() / np.maximum(count, 1)
        crosses = self._crosses([texts[i] for i in owner], flat)
        crossed = np.mean([ridge.predict(crosses) for ridge in self._crossed], axis=0)
        columns = (
            hit,
            count[owner] - hit,
            q_idf,
            trigram(texts),
            looks(q_words),
            matched(last_query)[1],
            trigram(last_query),
            matched(all_queries)[1],
            matched(last_title)[1],
            titles_idf,
            looks(title_words),
            count[owner],
            rarity[owner],
            load_prior(self._documents, flat),
            crossed,
        )
        return np.stack(columns, -1).reshape(n, d, len(FEATURES))
