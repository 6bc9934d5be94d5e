"""Models in a folder, opened by the server's settings: the very scores of the scorer itself."""

import numpy as np
import pytest

from corewrite.deployment.scorers import build_scorer
from corewrite.relevance.backends import ClipEncoder, ClipScorer, CrossEncoderScorer, OnnxScorer, ScoreCalibration, folder_hash
from corewrite.serving.settings import ServeConfig

TEXTS, ROWS = ["red lion", "how to cook"], np.array([[0, 1, 2], [2, 3, -1]])
HALF = ScoreCalibration(0.5, 0.25)


@pytest.mark.parametrize(
    ("kind", "made", "more"),
    [
        ("onnx", lambda c, f, pin: OnnxScorer(c, f, pin, HALF, max_tokens=6), {"max_tokens": 6}),
        ("cross_encoder", lambda c, f, pin: CrossEncoderScorer(c, f, pin, HALF, max_tokens=6), {"max_tokens": 6}),
        ("clip", lambda c, f, pin: ClipScorer(c, ClipEncoder(f, pin), c.visual, HALF), {}),
    ],
)
def test_by_settings_as_by_hand(request, catalogue, kind, made, more):
    folder = request.getfixturevalue(f"{kind}_folder")
    pin = folder_hash(folder)
    settings = {"kind": kind, "folder": folder, "pin": pin, "calibration": {"slope": 0.5, "offset": 0.25}, **more}
    config = ServeConfig.model_validate_json(ServeConfig.model_validate({"relevance": settings}).model_dump_json())
    scorer, by_hand = build_scorer(config.relevance, catalogue, live=True), made(catalogue, folder, pin)
    np.testing.assert_allclose(scorer.score(TEXTS, ROWS), by_hand.score(TEXTS, ROWS), rtol=1e-6)
    assert scorer.model_hash == by_hand.model_hash and config.what_ranks.signals["relevance"].identity["pin"] == pin
