"""Document features of the judge (words, letters, pictures), read for the documents graded so far."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from corewrite.domain import Documents, words
from corewrite.domain.documents import sample_rows, text_column
from corewrite.domain.extras import from_extra
from corewrite.relevance.vocabulary import Vocabulary

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

_LEARNT = 200_000
"""Documents that statistics of words and pictures come from; up to as many are all held in memory."""
_HELD = 200_000
"""Documents held at most where there are more."""
_PURPOSE = 67


class JudgedDocuments:
    """The documents as the judge reads them.

    Statistics (which words there are and how rare, what each looks like, the mean picture) are those of all documents, or of a
    sample of `_LEARNT`. Of more documents, what stands in them is read when they are first asked about.

    Attributes:
        word_index: Words and their inverse document frequency.
        trigram_index: The same of letter trigrams.
        vocabulary: Words by number.
        word_pictures: What each word looks like, float64 [words, dimensions].
        words, trigrams: Of the documents held, sparse [held, ...].
        word_ids: Numbers of their words, int64 [held, width]; 0 pads.
        pictures: Their pictures less the mean one, float64 [held, dimensions]; NaN where there is none.
    """

    def __init__(self, documents: Documents) -> None:
        with from_extra("train", "the judge reads words by scikit-learn"):
            from sklearn.feature_extraction.text import TfidfVectorizer

        self._documents = documents
        rows = sample_rows(len(documents), _LEARNT, _PURPOSE)
        said = self._texts(rows)
        self.word_index = TfidfVectorizer(
            tokenizer=words, lowercase=False, token_pattern=None, norm=None, binary=True, min_df=2
        )
        self.trigram_index = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True, min_df=2)
        found = self.word_index.fit_transform(said).tocsr()
        trigrams = self.trigram_index.fit_transform(said).tocsr()
        visual = self._visual(rows)
        seen = ~np.isnan(visual).any(1)
        self._mean = visual[seen].mean(0) if seen.any() else np.zeros(visual.shape[1], np.float32)
        pictures = visual - self._mean
        binary = found[seen].sign()
        count = np.asarray(binary.sum(0)).ravel()
        # What a word looks like; weak words (of all videos) have near-zero centroids and so say nothing.
        self.word_pictures = np.asarray((binary.T @ pictures[seen]) / (count + 3.0)[:, None], np.float64)
        self.vocabulary = Vocabulary.of(said)
        ids = self.vocabulary.encode(said)
        self._width = ids.shape[1]
        self._place: dict[int, int] | None = None
        if len(documents) > _LEARNT:
            self._place = {}
            found, trigrams, ids, pictures = found[:0], trigrams[:0], ids[:0], pictures[:0]
        self.words, self.trigrams, self.word_ids = found, trigrams, ids
        self.pictures = np.asarray(pictures, np.float64)

    def places(self, rows: IntArray) -> IntArray:
        """Where documents are held, int64 [n]; what was held before may have moved."""
        if self._place is None:
            return rows
        wanted = list(dict.fromkeys(rows.tolist()))
        missing = [row for row in wanted if row not in self._place]
        if missing:
            if len(self._place) + len(missing) > _HELD:
                self._place, missing = {}, wanted
            self._read(np.array(missing, np.int64))
        return np.array([self._place[row] for row in rows.tolist()], np.int64)

    def _read(self, rows: IntArray) -> None:
        assert self._place is not None
        held, said = len(self._place), self._texts(rows)
        self.words = _below(self.words[:held], self.word_index.transform(said))
        self.trigrams = _below(self.trigrams[:held], self.trigram_index.transform(said))
        self.word_ids = np.concatenate([self.word_ids[:held], self.vocabulary.encode(said, self._width)])
        self.pictures = np.concatenate([self.pictures[:held], np.asarray(self._visual(rows) - self._mean, np.float64)])
        self._place |= {row: held + i for i, row in enumerate(rows.tolist())}

    def _texts(self, rows: IntArray) -> list[str]:
        titles = text_column(self._documents, "title", rows)
        texts: Sequence[str] = [""] * len(rows)
        if "text" in self._documents.column_names:
            texts = text_column(self._documents, "text", rows)
        return [f"{a} {b}" for a, b in zip(titles, texts, strict=True)]

    def _visual(self, rows: IntArray) -> Float32Array:
        if "visual" not in self._documents.column_names:
            return np.zeros((len(rows), 1), np.float32)
        return np.asarray(self._documents.column("visual", rows), np.float32)


def _below(above: sp.csr_matrix, new: sp.csr_matrix) -> sp.csr_matrix:
    return sp.vstack([above, new], format="csr")
