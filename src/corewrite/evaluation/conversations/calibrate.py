"""From a ranker's scores to probabilities: fitted on training conversations, kept in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter

from corewrite.domain.extras import from_extra
from corewrite.evaluation.conversations.ranker import PassageRanker
from corewrite.evaluation.conversations.reader import ConversationsError
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.storage.json_file import read_object

FloatArray = npt.NDArray[np.float64]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_SHAPE = TypeAdapter(dict[str, dict[str, _Finite]])
_FIX = 'it holds {"RANKER": {"slope": a number above 0, "offset": a number}}, as `corewrite eval calibrate` writes it'


def fit_calibration(data: ConversationSet, ranker: PassageRanker) -> ScoreCalibration:
    """Fit how probable it is that a passage answers, given its score by a person's rewrite (Platt 1999).

    Of every turn with a person's rewrite the candidates that are found: the turn's own passage against all others.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ConversationsError: no turn has a person's rewrite that finds its passage and others, or scores say the opposite.
    """
    with from_extra("eval", "a calibration is fitted by scikit-learn"):
        from sklearn.linear_model import LogisticRegression
    scores, answers = list[FloatArray](), list[npt.NDArray[np.bool_]]()
    for turn, own in zip(data.turns, data.own_rows, strict=True):
        if turn.human_rewrite is None:
            continue
        (found,) = ranker.scores([turn.human_rewrite])
        found[data.shown_before(turn)] = -np.inf
        there = np.flatnonzero(found > -np.inf)
        scores.append(found[there])
        answers.append(there == own)
    x, y = (np.concatenate(part) if part else np.empty(0) for part in (scores, answers))
    if not 0 < y.sum() < len(y):
        raise ConversationsError(f"{ranker.name} cannot be calibrated: no person's rewrite finds its passage, and others")
    fitted = LogisticRegression(C=1e9, max_iter=1_000).fit(x[:, None], y.astype(np.int64))  # no penalty worth speaking of
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise ConversationsError(f"{ranker.name} cannot be calibrated: passages that answer have lower scores than others")
    return ScoreCalibration(slope, offset)


def load_calibrations(file: Path, known: Sequence[str]) -> dict[str, ScoreCalibration]:
    """Calibrations of rankers by their names.

    Args:
        file: JSON, as `corewrite eval calibrate` writes it.
        known: Names of rankers that there are.

    Raises:
        ConversationsError: it holds something else.
    """
    held = read_object(file, ConversationsError, _FIX, _SHAPE)
    return {name: _calibration(file, name, numbers, known) for name, numbers in held.items()}


def _calibration(file: Path, name: str, numbers: Mapping[str, float], known: Sequence[str]) -> ScoreCalibration:
    if name not in known:
        raise ConversationsError(f"{file}: {name!r:.50} is no ranker ({', '.join(known)}): take it out")
    if numbers.keys() != {"slope", "offset"}:
        raise ConversationsError(f"{file}: {name} has {', '.join(sorted(numbers))[:60] or 'nothing'}: {_FIX}")
    try:
        return ScoreCalibration(numbers["slope"], numbers["offset"])
    except ValueError as error:
        raise ConversationsError(f"{file}: {name}: {error}: {_FIX}") from error
