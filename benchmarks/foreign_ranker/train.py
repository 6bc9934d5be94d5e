"""Train the ranker: on the catalogue and on a log's examined results; then calibrate it on users held out (Platt 1999)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit as inverse_sigmoid
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from corewrite.domain import Catalogue
from corewrite.relevance import Impressions, held_out

from .examples import Negatives, catalogue_clozes
from .network import CrossEncoder, NetworkConfig
from .ranker import MAX_DOCUMENT, MAX_TEXT, ForeignRanker, build_pictures
from .tokens import PAD, document_texts, encode, make_tokenizer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

_LENGTH_GROUPS = 4
_DROPPED_WORDS, _DROPPED_PICTURES = 0.1, 0.05
_STUFFING = 6  # other queries at most


@dataclass(frozen=True)
class TrainingConfig:
    """How long and on what the ranker is trained; the defaults serve the miniature and the full platform.

    Attributes:
        vocabulary: Sub-words at most.
        clozes: Examples made of the catalogue alone, seen first.
        epochs: Passes over the log's examined results.
        batch: Examined results in a step; negatives come on top.
        rate, embedding_rate: Highest learning rates of the network and of what sub-words are and look like.
        negatives: Negatives of each kind per examined result.
        negative_weight: Weight of a negative beside an examined result's mean weight.
        stuffed: Texts per examined result that are stuffed with other queries' words, which never satisfy.
    """

    vocabulary: int = 4096
    clozes: int = 40_000
    epochs: float = 3
    batch: int = 1024
    rate: float = 2e-3
    embedding_rate: float = 1e-2
    negatives: float = 0.5
    negative_weight: float = 0.5
    stuffed: float = 0.15


@dataclass(frozen=True)
class TrainingReport:
    """What came out.

    Attributes:
        auc: Area under the ROC curve over examined results of users held out, by inverse propensity.
        log_loss: Their mean negative log-likelihood, nats, after calibration.
        held_out: How many they are.
        num_parameters: Trainable numbers of the network.
    """

    auc: float
    log_loss: float
    held_out: int
    num_parameters: int


@dataclass(frozen=True, eq=False)
class _Batch:
    """Pairs: sub-words of texts [pairs, w], catalogue rows, labels 0 or 1, weights, and words hidden in the document."""

    texts: IntArray
    rows: IntArray
    labels: FloatArray
    weights: FloatArray
    hidden: BoolArray | None = None


def train_ranker(
    catalogue: Catalogue, impressions: Impressions, *, seed: int, config: TrainingConfig = TrainingConfig(),
    progress: Progress = lambda done, total: None,
) -> tuple[ForeignRanker, TrainingReport]:  # fmt: skip
    """Train the cross-encoder that plays a user's own ranker.

    Args:
        catalogue: Titles, texts and pictures.
        impressions: Examined results of one or more windows (`LogWindow.impressions`: the gate's users are left out there).
        seed: Of everything random; the same seed gives the same ranker on the same machine and thread count.
        config: How long.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: no impression, or no satisfied or no unsatisfied one.
    """
    if not impressions.satisfied.any() or impressions.satisfied.all():
        raise ValueError(
            f"of {len(impressions.rows)} impressions {int(impressions.satisfied.sum())} satisfied: both are needed"
        )
    documents = document_texts(catalogue)
    tokenizer = make_tokenizer(documents, impressions.texts, vocabulary=config.vocabulary, seed=seed)
    pictures = build_pictures(catalogue)
    size, sub_words = tokenizer.get_vocab_size(), encode(tokenizer, documents, MAX_DOCUMENT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CrossEncoder(NetworkConfig(size, pictures.shape[1]))
    network.start_looks(first_looks(sub_words, pictures, size), torch.from_numpy(pictures.mean(0)))
    rng = np.random.default_rng([seed, 62])
    negatives = Negatives(sub_words, pictures, rng)
    test = held_out(impressions.user_ids)

    clozes = catalogue_clozes(documents, config.clozes // config.batch * config.batch, rng)
    cloze_texts = encode(tokenizer, clozes.texts, MAX_TEXT)
    distinct = list(dict.fromkeys(impressions.texts))
    place = {text: i for i, text in enumerate(distinct)}
    log_texts = encode(tokenizer, distinct, MAX_TEXT)[[place[text] for text in impressions.texts]]
    batches = chain(
        _cloze_batches(cloze_texts, clozes.rows, sub_words, network, negatives, rng, config.batch),
        _log_batches(log_texts, impressions, np.flatnonzero(~test), network, negatives, rng, config),
    )
    total = len(clozes.rows) // config.batch + _log_steps(int((~test).sum()), config)
    _optimise(network, batches, sub_words, pictures, rng, config, total, progress)
    ranker = ForeignRanker(network.eval(), tokenizer)
    return ranker, _calibrate(ranker, catalogue, impressions, np.flatnonzero(test))


def joined_impressions(parts: Sequence[Impressions]) -> Impressions:
    """The impressions of several windows as one."""
    return Impressions(
        [text for part in parts for text in part.texts],
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.satisfied for part in parts]),
        np.concatenate([part.weights for part in parts]),
        [user for part in parts for user in part.user_ids],
    )


def first_looks(documents: IntArray, pictures: npt.NDArray[np.float32], sub_words: int) -> torch.Tensor:
    """What sub-words look like before training: the mean picture of the documents that hold them, and a bias.

    Args:
        documents: Sub-words of each document, [documents, width], padded with `PAD`.
        pictures: Their pictures, [documents, v].
        sub_words: Size of the vocabulary.

    Returns:
        [sub-words, v + 1]; the last number is the bias. Its logit, 10 (cosine - threshold), passes a tail of chance likeness
        alone; a sub-word of all kinds of pictures passes none.
    """
    shown = (pictures - pictures.mean(0)).astype(np.float64)
    ordered = np.sort(documents, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = PAD
    count = np.bincount(ordered.ravel(), minlength=sub_words).astype(np.float64)
    centroid = np.zeros((sub_words, pictures.shape[1]))
    for column in ordered.T:
        np.add.at(centroid, column, shown)
    centroid /= (count + 5.0)[:, None]  # shrunk: a sub-word of three documents says little of what it looks like
    norm = np.linalg.norm(centroid, axis=1, keepdims=True)
    by_chance = np.sqrt((shown**2).sum(1).mean() / shown.shape[1])
    direction = np.where(norm > 0.05, 10 * centroid / np.maximum(norm, 1e-9), 0.0)
    bias = np.where(norm > 0.15, -10 * (2.2 * by_chance + 0.15), -6.0)
    looks = np.concatenate([direction, bias], 1)
    looks[PAD] = 0
    return torch.from_numpy(looks).float()


def _cloze_batches(
    texts: IntArray, rows: IntArray, documents: IntArray, network: CrossEncoder, negatives: Negatives,
    rng: np.random.Generator, batch: int,
) -> Iterator[_Batch]:  # fmt: skip
    for start in range(0, len(rows), batch):
        text, row = texts[start : start + batch], rows[start : start + batch]
        n = len(row)
        some, is_some = negatives.with_some_words(text)
        alike, is_alike = negatives.alike(text, network.looks_of_words())
        # Half of the time the words are not in the document: its other words and its picture must tell.
        own = (documents[row][:, :, None] == text[:, None, :]).any(2) & (rng.random((n, 1)) < 0.5)
        yield _Batch(
            np.concatenate([text] * 3), np.concatenate([row, some, alike]), np.repeat([1.0, 0.0], [n, 2 * n]),
            np.concatenate([np.ones(n), 0.5 * is_some, is_alike.astype(np.float64)]),
            np.concatenate([own, np.zeros((2 * n, documents.shape[1]), np.bool_)]),
        )  # fmt: skip


def _log_steps(impressions: int, config: TrainingConfig) -> int:
    return max(1, int(config.epochs * impressions / config.batch))


def _log_batches(
    texts: IntArray, impressions: Impressions, train: IntArray, network: CrossEncoder, negatives: Negatives,
    rng: np.random.Generator, config: TrainingConfig,
) -> Iterator[_Batch]:  # fmt: skip
    labels, weights = impressions.satisfied.astype(np.float64), impressions.weights / impressions.weights.mean()
    coming = np.empty(0, np.int64)
    for _ in range(_log_steps(len(train), config)):
        while len(coming) < config.batch:
            coming = np.concatenate([coming, rng.permutation(train)])
        chosen, coming = coming[: config.batch], coming[config.batch :]
        asked = texts[rng.choice(chosen, int(config.negatives * len(chosen)))]
        some, is_some = negatives.with_some_words(asked)
        alike, is_alike = negatives.alike(asked, network.looks_of_words())
        anything = negatives.any_document(len(asked))
        stuffed = rng.choice(chosen, int(config.stuffed * len(chosen)))
        others = texts[rng.choice(train, (len(stuffed), _STUFFING))]
        others[rng.random((len(stuffed), _STUFFING)) < rng.uniform(0, 0.9, (len(stuffed), 1))] = PAD
        said = (texts[chosen], asked, asked, asked, _joined(texts[stuffed], others))
        count = len(stuffed) + 3 * len(asked)
        usual = config.negative_weight * np.concatenate([is_some, is_alike, np.ones(len(asked))])
        yield _Batch(
            _stacked(said), np.concatenate([impressions.rows[chosen], some, alike, anything, impressions.rows[stuffed]]),
            np.concatenate([labels[chosen], np.zeros(count)]), np.concatenate([weights[chosen], usual, weights[stuffed]]),
        )  # fmt: skip


def _joined(texts: IntArray, others: IntArray) -> IntArray:
    """Each of `texts` [texts, w] followed by the sub-words of its `others` [texts, n, w], without gaps."""
    joined = np.concatenate([texts, others.reshape(len(texts), -1)], 1)
    return np.take_along_axis(joined, np.argsort(joined == PAD, axis=1, kind="stable"), 1)[:, :MAX_TEXT]


def _stacked(parts: Sequence[IntArray]) -> IntArray:
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=PAD) for part in parts])


def _optimise(
    network: CrossEncoder, batches: Iterable[_Batch], documents: IntArray, pictures: npt.NDArray[np.float32],
    rng: np.random.Generator, config: TrainingConfig, total: int, progress: Progress,
) -> None:  # fmt: skip
    embeddings, rest = network.embeddings(), network.other_parameters()
    optimizer = torch.optim.Adam([{"params": embeddings}, {"params": rest}])
    rates = [config.embedding_rate, config.rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total + 1, pct_start=0.15)
    for done, batch in enumerate(batches, 1):
        document, picture = documents[batch.rows], pictures[batch.rows]
        document[rng.random(document.shape) < _DROPPED_WORDS] = PAD
        if batch.hidden is not None:
            document[batch.hidden] = PAD
        picture[rng.random(len(picture)) < _DROPPED_PICTURES] = 0
        # Texts of one length together: most are short, and one long one would widen all.
        length = (batch.texts != PAD).sum(1)
        groups = np.array_split(np.argsort(length, kind="stable"), _LENGTH_GROUPS)
        logits = [
            network.score(
                torch.from_numpy(batch.texts[group, : max(1, length[group].max())]), torch.from_numpy(document[group]),
                torch.from_numpy(picture[group]),
            )
            for group in groups
        ]  # fmt: skip
        order = np.concatenate(groups)
        weight = torch.from_numpy(batch.weights[order]).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            torch.cat(logits), torch.from_numpy(batch.labels[order]).float(), weight, reduction="sum"
        )
        optimizer.zero_grad(set_to_none=True)
        (loss / weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_([*embeddings, *rest], 1.0)
        optimizer.step()
        schedule.step()
        progress(done, total)


def _calibrate(ranker: ForeignRanker, catalogue: Catalogue, impressions: Impressions, test: IntArray) -> TrainingReport:
    """Put slope and offset of Platt into the last layer, fitted on the impressions `test`."""
    texts = [impressions.texts[i] for i in test]
    p = ranker.bind(catalogue).score(texts, impressions.rows[test][:, None])[:, 0]
    x, y, weights = inverse_sigmoid(p)[:, None], impressions.satisfied[test], impressions.weights[test]
    platt = LogisticRegression(C=1e6).fit(x, y, weights)
    ranker.network.rescale(float(platt.coef_[0, 0]), float(platt.intercept_[0]))
    return TrainingReport(
        float(roc_auc_score(y, p, sample_weight=weights)),
        float(log_loss(y, platt.predict_proba(x)[:, 1], sample_weight=weights)), len(test), ranker.network.num_parameters,
    )  # fmt: skip
