"""The bundled multimodal relevance model: word-by-word late interaction of a text with title, tags and picture.

Every distinct word t of the text is matched with the document on its own, m_t(d) in [0, 1], by its best-matching word of the
document's text (as in ColBERT, Khattab & Zaharia 2020) and by the document's picture (a joint space as in CLIP, Radford et
al. 2021), the stronger counting:

    m_t(d)    = max( text_t(d), picture_t(d) )
    logit     = bias + sum_t w_t (gain * m_t(d) - toll) - toll_unknown * unknown words,   w_t >= 0, gain >= toll >= 0

So the score grows with every part of the intent that a document meets, a repeated word counts once, and a word that
a document does not meet costs: stuffing a text with words cannot pay on every document. A cheap pooled form of the same
embeddings (`embed_texts`, `embed_documents`) serves dense recall and rawrank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from corewrite.domain import Catalogue, sha256_chunks
from corewrite.relevance.embedded import build_pictures
from corewrite.relevance.spelling import SpellingCorrector
from corewrite.relevance.vocabulary import Vocabulary
from corewrite.storage.durable import naming

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

_WEIGHTS = "model.safetensors"
_SPELLING = "spelling.json"
_NOT_WEIGHTS = ("vocabulary", "spelling")


@dataclass(frozen=True, eq=False)
class LateInteraction:
    """Weights of the model.

    Attributes:
        vocabulary: Known words; V of them, index 0 is unknown.
        word: Unit text embedding of each word, float32 [V, k].
        picture: What each word looks like, unit, float32 [V, v]; v as the catalogue's pictures.
        picture_bias: How hard a picture is to match for each word, float32 [V].
        weight: Weight w_t >= 0 of each word, float32 [V]; 0 for the unknown one.
        mean_picture: Mean picture of the catalogue, float32 [v], subtracted first.
        scalars: text_slope, text_offset, picture_slope, gain, toll, toll_unknown, bias, calibration_slope,
            calibration_bias, dense_slope, dense_bias, use_picture (1 or 0), float64 [12].
        spelling: Corrects texts before they are scored or embedded; None in models made before there was one.
    """

    vocabulary: Vocabulary
    word: Float32Array
    picture: Float32Array
    picture_bias: Float32Array
    weight: Float32Array
    mean_picture: Float32Array
    scalars: FloatArray
    spelling: SpellingCorrector | None = None

    @cached_property
    def model_hash(self) -> str:
        """Content hash over words, weights and spelling."""
        arrays = [getattr(self, f.name) for f in fields(self) if f.name not in _NOT_WEIGHTS]
        spelling = [] if self.spelling is None else [self.spelling.to_json().encode()]
        return sha256_chunks(["\n".join(self.vocabulary.words).encode(), *(a.tobytes() for a in arrays), *spelling])

    def correct(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts as they are scored: spelling corrected."""
        return texts if self.spelling is None else self.spelling.correct(texts)

    def bind(self, catalogue: Catalogue) -> "BoundLateInteraction":
        """The model ready to score the documents of `catalogue`.

        Raises:
            ValueError: the catalogue's pictures have another number of dimensions than the model's, or a document has none.
        """
        if catalogue.visual.shape[1] != self.picture.shape[1]:
            raise ValueError(
                f"the catalogue's pictures have {catalogue.visual.shape[1]} dimensions, the relevance model expects "
                f"{self.picture.shape[1]}: train the model on this catalogue or bring its picture embeddings"
            )
        return BoundLateInteraction(self, catalogue)

    def save(self, folder: Path) -> None:
        """Write the model as safetensors with its words beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self) if f.name not in _NOT_WEIGHTS}
        with naming(folder):
            save_file(tensors, folder / _WEIGHTS, metadata={"format": "corewrite-late-interaction-1"})
            (folder / "vocabulary.txt").write_text("\n".join(self.vocabulary.words[1:]), "utf-8")
            if self.spelling is not None:
                (folder / _SPELLING).write_text(self.spelling.to_json(), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "LateInteraction":
        """Read a model written by `save`.

        Raises:
            FileNotFoundError: the folder holds no model of this kind.
            ValueError: it holds one that is damaged.
        """
        if not (folder / _WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder} holds no relevance model: {_WEIGHTS} is missing")
        try:
            with safe_open(folder / _WEIGHTS, "numpy") as tensors:
                arrays = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (not a dict)
            said = (folder / "vocabulary.txt").read_text("utf-8")
            stored = folder / _SPELLING
            spelling = SpellingCorrector.from_json(stored.read_text("utf-8")) if stored.is_file() else None
            found = cls(vocabulary=Vocabulary(("", *said.split("\n"))), spelling=spelling, **arrays)
            found._refuse_misfit()
        except (SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{folder} holds a relevance model that is damaged ({str(error)[:200]}): restore it") from error
        return found

    def _refuse_misfit(self) -> None:
        words, (dims,) = len(self.vocabulary.words), self.mean_picture.shape
        shapes = {
            "word": (words, self.word.shape[-1]),
            "picture": (words, dims),
            "picture_bias": (words,),
            "weight": (words,),
            "scalars": (len(SCALARS),),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype.kind != "f":
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not floats {list(shape)}")

    def scalar(self, name: str) -> float:
        """One of the scalars by name."""
        return float(self.scalars[SCALARS.index(name)])


SCALARS = (
    "text_slope",
    "text_offset",
    "picture_slope",
    "gain",
    "toll",
    "toll_unknown",
    "bias",
    "calibration_slope",
    "calibration_bias",
    "dense_slope",
    "dense_bias",
    "use_picture",
)


def sigmoid(x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Logistic function, safe for large |x|."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


class BoundLateInteraction:
    """Scores the documents of one catalogue (a `RelevanceScorer`).

    How well each word matches each document does not depend on the rest of the text, so it is computed once per word, for
    all documents, and kept: scoring a pair is then a sum of a few table look-ups.
    """

    def __init__(self, model: LateInteraction, catalogue: Catalogue, table_bytes: int = 512 * 2**20) -> None:
        self.model = model
        self.catalogue = catalogue
        if model.spelling is not None:
            model.spelling.prepare()
        self._doc_words = model.vocabulary.encode(
            [f"{title} {text}" for title, text in zip(catalogue.titles, catalogue.texts, strict=True)]
        )
        self._pictures = build_pictures(catalogue) - model.mean_picture
        size = len(model.vocabulary.words)
        self._capacity = max(64, min(size, table_bytes // (4 * max(1, len(catalogue)))))
        self._table = np.empty((self._capacity, len(catalogue)), np.float32)
        self._slot = np.full(size, -1, np.int64)
        self._used = 0

    @property
    def model_hash(self) -> str:
        """Content hash of the weights."""
        return self.model.model_hash

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """Calibrated probabilities, float64 [texts, documents]; see `RelevanceScorer.score`."""
        rows = np.asarray(rows, np.int64)
        out = np.empty(rows.shape)
        vocabulary, m = self.model.vocabulary, self.model
        width = max(1, self._capacity // 2)
        for start in range(0, len(texts), 256):  # bounds the gathered block
            chunk = m.correct(texts[start : start + 256])
            word_ids = vocabulary.encode(chunk)[:, :width]
            block = rows[start : start + 256]
            safe = np.maximum(block, 0)
            self._fill(np.unique(word_ids))
            logit = np.full(block.shape, m.scalar("bias"), np.float64)
            logit -= (m.scalar("toll_unknown") * vocabulary.unknown(chunk))[:, None]
            for j in range(word_ids.shape[1]):
                ids = word_ids[:, j]
                here = np.flatnonzero(ids)
                if len(here) == 0:
                    continue
                match = self._table[self._slot[ids[here]][:, None], safe[here]]
                logit[here] += m.weight[ids[here]][:, None] * (m.scalar("gain") * match - m.scalar("toll"))
            logit = m.scalar("calibration_slope") * logit + m.scalar("calibration_bias")
            out[start : start + 256] = np.where(block < 0, 0.0, np.clip(sigmoid(logit), 1e-6, 1 - 1e-6))
        return out

    def match(self, word_id: int) -> Float32Array:
        """How well one word of the vocabulary matches every document, float32 [documents] in [0, 1]."""
        m = self.model
        cosine = (m.word @ m.word[word_id]).astype(np.float32)
        cosine[0] = -1.0
        best = cosine[self._doc_words].max(1)
        text = sigmoid(m.scalar("text_slope") * (best - m.scalar("text_offset")))
        if m.scalar("use_picture") == 0:
            return np.asarray(text, np.float32)
        seen = self._pictures @ m.picture[word_id]
        picture = sigmoid(m.scalar("picture_slope") * (seen - m.picture_bias[word_id]))
        return np.asarray(np.maximum(text, picture), np.float32)

    def _fill(self, word_ids: IntArray) -> None:
        missing = [int(i) for i in word_ids if i and self._slot[i] < 0]
        if self._used + len(missing) > self._capacity:  # rare: start the table again with what this call needs
            self._slot[:] = -1
            self._used = 0
            missing = [int(i) for i in word_ids if i]
            if len(missing) > self._capacity:
                raise ValueError(f"{len(missing)} distinct words in 256 texts exceed the table of {self._capacity}")
        for i in missing:
            self._table[self._used] = self.match(i)
            self._slot[i] = self._used
            self._used += 1


class DenseScorer:
    """The pooled form of the same embeddings: one vector a text, one a document (a `RelevanceScorer`)."""

    def __init__(self, full: BoundLateInteraction) -> None:
        self.full = full
        self._model = full.model

    @property
    def model_hash(self) -> str:
        """Content hash of the weights it shares with the full model."""
        return self._model.model_hash

    @cached_property
    def document_vectors(self) -> Float32Array:
        """Unit vector of each document, float32 [documents, k + v]."""
        m, words = self._model, self.full._doc_words
        vectors = np.empty((len(words), m.word.shape[1] + m.picture.shape[1]), np.float32)
        for start in range(0, len(words), 8192):  # bounds the gathered block
            w = words[start : start + 8192]
            vectors[start : start + 8192] = self._pool(
                (m.word[w] * m.weight[w][..., None]).sum(1), self.full._pictures[start : start + 8192]
            )
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> Float32Array:
        """Unit vector of each text, float32 [texts, k + v]; zero where no word is known."""
        m = self._model
        ids = m.vocabulary.encode(m.correct(texts))
        weight = m.weight[ids][..., None]
        return self._pool((m.word[ids] * weight).sum(1), (m.picture[ids] * weight).sum(1))

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """Calibrated probabilities from the pooled vectors, float64 [texts, documents]."""
        rows = np.asarray(rows, np.int64)
        vectors = self.embed_texts(texts)
        out = np.empty(rows.shape)
        for start in range(0, len(texts), 256):
            block = rows[start : start + 256]
            documents = self.document_vectors[np.maximum(block, 0)]
            cosine = np.einsum("tdk,tk->td", documents, vectors[start : start + 256])
            p = sigmoid(self._model.scalar("dense_slope") * cosine.astype(np.float64) + self._model.scalar("dense_bias"))
            out[start : start + 256] = np.where(block < 0, 0.0, np.clip(p, 1e-6, 1 - 1e-6))
        return out

    def _pool(self, text: Float32Array, picture: Float32Array) -> Float32Array:
        if self._model.scalar("use_picture") == 0:
            picture = np.zeros_like(picture)
        return np.asarray(np.concatenate([_unit(text), _unit(picture)], 1) / np.sqrt(2.0), np.float32)


def _unit(x: Float32Array) -> Float32Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), np.float32)
