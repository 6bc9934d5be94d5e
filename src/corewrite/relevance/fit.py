"""Fit the bundled relevance model: from the catalogue alone (a cold start), then on a log's examined impressions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit as inverse_sigmoid

from corewrite.domain import Catalogue, hash_share
from corewrite.domain.extras import from_extra
from corewrite.relevance.embedded import build_pictures
from corewrite.relevance.late_interaction import SCALARS, BoundLateInteraction, DenseScorer, LateInteraction
from corewrite.relevance.spelling import SpellingCorrector
from corewrite.relevance.vocabulary import Vocabulary

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Impressions:
    """Examined results of a log, one element each.

    Attributes:
        texts: What was typed.
        rows: Catalogue row shown, int64.
        satisfied: Whether it satisfied, bool.
        weights: Importance (inverse examination propensity), float64.
        user_ids: Who saw it; held-out splits go by user.
    """

    texts: Sequence[str]
    rows: IntArray
    satisfied: npt.NDArray[np.bool_]
    weights: FloatArray
    user_ids: Sequence[str]


@dataclass(frozen=True)
class FitReport:
    """How well a model predicts on held-out users.

    Attributes:
        auc: Area under the ROC curve over held-out examined impressions.
        log_loss: Weighted mean negative log-likelihood, nats.
        calibration_error: Expected calibration error over ten equally filled bins.
        impressions: How many impressions were held out.
    """

    auc: float
    log_loss: float
    calibration_error: float
    impressions: int


def cold_start(catalogue: Catalogue, texts: Sequence[str] = (), *, seed: int = 0, dimensions: int = 32) -> LateInteraction:
    """A model fitted without clicks: exact word matches, and visual embeddings of words from the titles they occur in.

    Args:
        catalogue: Its titles, texts and pictures.
        texts: Queries of the log, for words that no title holds (they match nothing before training).
        seed: For the random word embeddings.
        dimensions: Size k of a word embedding.
    """
    documents = [f"{title} {text}" for title, text in zip(catalogue.titles, catalogue.texts, strict=True)]
    spelling = SpellingCorrector.learn(documents, texts)
    vocabulary = Vocabulary.of([*documents, *spelling.correct(texts)])
    size = len(vocabulary.words)
    rng = np.random.default_rng([seed, 31])
    word = rng.normal(size=(size, dimensions)).astype(np.float32)
    word /= np.linalg.norm(word, axis=1, keepdims=True)

    visual = build_pictures(catalogue)
    mean = visual.mean(0)
    pictures = visual - mean
    ids = vocabulary.encode(documents)
    count = np.bincount(ids.ravel(), minlength=size).astype(np.float64)
    centroid = np.zeros((size, pictures.shape[1]))
    for column in ids.T:
        np.add.at(centroid, column, pictures)
    # Shrunk towards nothing: a word of three titles says little of what it looks like.
    centroid /= (count + 5.0)[:, None]
    norm = np.linalg.norm(centroid, axis=1, keepdims=True)
    picture = (centroid / np.maximum(norm, 1e-9)).astype(np.float32)
    spread = np.sqrt((pictures.astype(np.float64) ** 2).sum(1).mean() / max(1, pictures.shape[1]))
    # A word that looks like everything gets a bias that no picture passes.
    bias = np.where(norm[:, 0] > 0.15, 2.2 * spread + 0.15, 5.0).astype(np.float32)
    rarity = np.log((len(catalogue) + 1.0) / (count + 1.0))
    weight = np.clip(rarity / 6.0, 0.05, 1.3).astype(np.float32)
    weight[0], picture[0], word[0] = 0.0, 0.0, 0.0
    scalars = dict(
        text_slope=12.0,
        text_offset=0.75,
        picture_slope=10.0,
        gain=4.0,
        toll=1.5,
        toll_unknown=0.5,
        bias=-3.0,
        calibration_slope=1.0,
        calibration_bias=0.0,
        dense_slope=8.0,
        dense_bias=-5.0,
        use_picture=float(bool(pictures.any())),
    )
    return LateInteraction(
        vocabulary,
        word,
        picture,
        bias,
        weight,
        mean.astype(np.float32),
        np.array([scalars[s] for s in SCALARS]),
        spelling,
    )


def held_out(user_ids: Sequence[str], share: float = 0.15) -> npt.NDArray[np.bool_]:
    """Which impressions belong to users held out of fitting, by a fixed hash of the user."""
    known: dict[str, bool] = {}
    for user in user_ids:
        if user not in known:
            known[user] = hash_share(user, "relevance-held-out") < share
    return np.array([known[user] for user in user_ids], np.bool_)


def fit(
    start: LateInteraction,
    catalogue: Catalogue,
    impressions: Impressions,
    *,
    seed: int,
    epochs: int = 3,
    batch: int = 2048,
    negatives: float = 0.5,
    use_picture: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LateInteraction, FitReport]:
    """Train on examined impressions by weighted cross-entropy, calibrate on held-out users (Platt 1999), and report.

    Args:
        start: Where to start: a cold start or last week's model. Words it lacks are unknown.
        catalogue: What the rows mean.
        impressions: Examined results.
        seed: For order and sampled negatives.
        epochs: Passes over the impressions.
        batch: Impressions per step.
        negatives: Random documents per impression, with label 0 and a tenth of the weight.
        use_picture: False for the text-only comparison.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: no impression, or no satisfied or no unsatisfied one.
    """
    labels = np.asarray(impressions.satisfied, np.bool_)
    if not labels.any() or labels.all():
        raise ValueError(
            f"a relevance model needs satisfied and unsatisfied impressions; the log has {int(labels.sum())} "
            f"satisfied of {len(labels)}"
        )
    if not use_picture:
        start = replace(start, scalars=_with(start.scalars, use_picture=0.0))
    test = held_out(impressions.user_ids)
    train = np.flatnonzero(~test)
    rng = np.random.default_rng([seed, 32])
    net = _Network(start, catalogue)
    text_index, text_ids, text_unknown = _encode_unique(start, impressions.texts)
    optimizer = torch.optim.Adam(net.groups(), eps=1e-8)
    steps = epochs * max(1, len(train) // batch)
    peaks = [g["lr"] for g in optimizer.param_groups]
    rise = max(0.1, 1.5 / (steps + 1))  # its end must not fall on the first step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=steps + 1, pct_start=rise)
    done = 0
    for _ in range(epochs):
        order = rng.permutation(train)
        for first in range(0, max(1, len(train) // batch) * batch, batch):
            chosen = order[first : first + batch]
            n_random = int(len(chosen) * negatives)
            texts = np.concatenate([text_index[chosen], text_index[rng.choice(chosen, n_random)]])
            rows = np.concatenate([impressions.rows[chosen], rng.integers(0, len(catalogue), n_random)])
            target = np.concatenate([labels[chosen], np.zeros(n_random, np.bool_)])
            weights = np.concatenate([impressions.weights[chosen], np.full(n_random, 0.1 * impressions.weights[chosen].mean())])
            scores = net(text_ids[texts], text_unknown[texts], rows)
            weight = torch.from_numpy(weights).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                scores, torch.from_numpy(target).float(), weight=weight, reduction="sum"
            )
            loss = loss / weight.sum() + net.regulariser()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done += 1
            progress(done, steps)
    model = net.export()
    return _calibrate(model, catalogue, impressions, test)


def _with(scalars: FloatArray, **changes: float) -> FloatArray:
    out = scalars.copy()
    for name, value in changes.items():
        out[SCALARS.index(name)] = value
    return out


def _encode_unique(model: LateInteraction, texts: Sequence[str]) -> tuple[IntArray, IntArray, IntArray]:
    unique: dict[str, int] = {}
    index = np.array([unique.setdefault(t, len(unique)) for t in texts], np.int64)
    distinct = model.correct(list(unique))
    return index, model.vocabulary.encode(distinct)[:, :12], model.vocabulary.unknown(distinct)


class _Network(torch.nn.Module):
    """The formula of `late_interaction` with gradients; document words and pictures are constants."""

    def __init__(self, model: LateInteraction, catalogue: Catalogue) -> None:
        super().__init__()
        self.start = model
        self.word = torch.nn.Parameter(torch.from_numpy(model.word.copy()))
        self.picture = torch.nn.Parameter(torch.from_numpy(model.picture.copy()))
        self.picture_bias = torch.nn.Parameter(torch.from_numpy(model.picture_bias.copy()))
        self.raw_weight = torch.nn.Parameter(_softplus_inverse(torch.from_numpy(np.maximum(model.weight, 0.02))))
        # gain = toll + softplus(.): a matched word can never count less than an unmatched one.
        s = {name: model.scalar(name) for name in SCALARS}
        self.raw = torch.nn.Parameter(
            torch.tensor(
                [
                    _softplus_inverse(torch.tensor(max(0.05, s["gain"] - s["toll"]))).item(),
                    _softplus_inverse(torch.tensor(max(0.05, s["toll"]))).item(),
                    _softplus_inverse(torch.tensor(max(0.05, s["toll_unknown"]))).item(),
                    s["bias"],
                ]
            )
        )
        documents = [f"{a} {b}" for a, b in zip(catalogue.titles, catalogue.texts, strict=True)]
        self.doc_words = torch.from_numpy(model.vocabulary.encode(documents))
        self.pictures = torch.from_numpy(build_pictures(catalogue) - model.mean_picture)
        self.use_picture = model.scalar("use_picture") == 1
        self.anchor = self.picture.detach().clone()

    def groups(self) -> list[dict[str, object]]:
        """Parameter groups with their peak learning rates."""
        return [
            {"params": [self.word], "lr": 0.01},
            {"params": [self.picture], "lr": 0.01},
            {"params": [self.picture_bias, self.raw_weight], "lr": 0.02},
            {"params": [self.raw], "lr": 0.02},
        ]

    def forward(self, text_ids: IntArray, unknown: IntArray, rows: IntArray) -> torch.Tensor:
        """Logits of pairs: words [n, w], unknown counts [n], catalogue rows [n] -> [n]."""
        ids = torch.from_numpy(text_ids)
        used = ids > 0
        row = torch.from_numpy(rows)
        t = torch.nn.functional.normalize(_look_up(self.word, ids), dim=-1)  # [n, w, k]
        documents = self.doc_words[row]
        d = torch.nn.functional.normalize(_look_up(self.word, documents), dim=-1)  # [n, u, k]
        cosine = torch.einsum("nwk,nuk->nwu", t, d)
        # The same word is an exact match whatever its embedding has become, as it is when scoring.
        best = cosine.masked_fill((documents == 0)[:, None, :], -1.0).amax(-1)
        match = torch.sigmoid(self.start.scalar("text_slope") * (best - self.start.scalar("text_offset")))
        if self.use_picture:
            looks = torch.nn.functional.normalize(_look_up(self.picture, ids), dim=-1)
            seen = torch.einsum("nwv,nv->nw", looks, self.pictures[row])
            picture = torch.sigmoid(self.start.scalar("picture_slope") * (seen - _look_up(self.picture_bias, ids)))
            match = torch.maximum(match, picture)
        above, toll, toll_unknown = torch.nn.functional.softplus(self.raw[:3])
        weight = _look_up(torch.nn.functional.softplus(self.raw_weight), ids) * used
        word_part = (weight * ((above + toll) * match - toll)).sum(-1)
        logits: torch.Tensor = word_part - toll_unknown * torch.from_numpy(unknown).float() + self.raw[3]
        return logits

    def regulariser(self) -> torch.Tensor:
        """Keep what words look like near what their titles showed: most words have few clicks."""
        return 1e-4 * (self.picture - self.anchor).square().sum() / self.picture.shape[1]

    def export(self) -> LateInteraction:
        """The weights as the scoring model."""
        with torch.no_grad():
            above, toll, toll_unknown = torch.nn.functional.softplus(self.raw[:3]).tolist()
            weight = torch.nn.functional.softplus(self.raw_weight).numpy().copy()
            weight[0] = 0.0
            return replace(
                self.start,
                word=torch.nn.functional.normalize(self.word, dim=-1).numpy().copy(),
                picture=torch.nn.functional.normalize(self.picture, dim=-1).numpy().copy(),
                picture_bias=self.picture_bias.numpy().copy(),
                weight=weight,
                scalars=_with(
                    self.start.scalars, gain=above + toll, toll=toll, toll_unknown=toll_unknown, bias=float(self.raw[3])
                ),
            )


def _look_up(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows of `table`: unlike indexing, an embedding adds up its gradient in the same order with any number of threads."""
    rows = torch.nn.functional.embedding(ids, table if table.ndim == 2 else table[:, None])
    return rows if table.ndim == 2 else rows[..., 0]


def _softplus_inverse(y: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.expm1(y))


def _calibrate(
    model: LateInteraction, catalogue: Catalogue, impressions: Impressions, test: npt.NDArray[np.bool_]
) -> tuple[LateInteraction, FitReport]:
    """Fit slope and offset of both scores on half of the held-out users, report on the other half."""
    users = np.array([hash_share(user, "relevance-calibration") < 0.5 for user in impressions.user_ids])
    tune, report = np.flatnonzero(test & users), np.flatnonzero(test & ~users)
    labels = np.asarray(impressions.satisfied)
    model = replace(model, scalars=_with(model.scalars, calibration_slope=1, calibration_bias=0, dense_slope=1, dense_bias=0))
    bound = BoundLateInteraction(model, catalogue)
    dense = DenseScorer(bound)

    def pairs(index: IntArray) -> tuple[list[str], IntArray]:
        return [impressions.texts[i] for i in index], impressions.rows[index][:, None]

    if len(tune) and len(set(labels[tune].tolist())) == 2:
        texts, rows = pairs(tune)
        with from_extra("train", "a relevance model is calibrated by scikit-learn"):
            from sklearn.linear_model import LogisticRegression
        full = inverse_sigmoid(bound.score(texts, rows)[:, 0])
        pooled = inverse_sigmoid(dense.score(texts, rows)[:, 0])
        slopes = []
        for x in (full, pooled):
            platt = LogisticRegression(C=1e6).fit(x[:, None], labels[tune], impressions.weights[tune])
            slopes.append((max(1e-3, float(platt.coef_[0, 0])), float(platt.intercept_[0])))
        (a, b), (c, d) = slopes
        model = replace(
            model, scalars=_with(model.scalars, calibration_slope=a, calibration_bias=b, dense_slope=c, dense_bias=d)
        )
    else:
        raise ValueError("too few held-out impressions to calibrate the relevance model: bring a longer log")
    texts, rows = pairs(report)
    p = BoundLateInteraction(model, catalogue).score(texts, rows)[:, 0]
    return model, evaluate(p, labels[report], impressions.weights[report])


def evaluate(p: FloatArray, satisfied: npt.NDArray[np.bool_], weights: FloatArray) -> FitReport:
    """AUC, log-loss and calibration error of predicted probabilities `p`."""
    if len(set(satisfied.tolist())) < 2:
        raise ValueError("held-out impressions are all satisfied or all not: AUC is undefined, bring a longer log")
    with from_extra("train", "a relevance model is evaluated by scikit-learn"):
        from sklearn.metrics import roc_auc_score
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, 10)
    error = (
        sum(
            weights[b].sum() * abs(np.average(p[b], weights=weights[b]) - np.average(satisfied[b], weights=weights[b]))
            for b in bins
            if len(b)
        )
        / weights.sum()
    )
    loss = -np.average(np.where(satisfied, np.log(p), np.log1p(-p)), weights=weights)
    return FitReport(float(roc_auc_score(satisfied, p)), float(loss), float(error), len(p))
