"""Replaying logged requests: the same spec gives the logged factors, a changed one is found out."""

import json

import numpy as np
import pytest

from corewrite.fusion import StageFusion, default_spec, evaluate_stage, replay

SPEC = default_spec()
RNG = np.random.default_rng(5)
OWN, NEW = ({n: RNG.uniform(0, 1, (40, 25)) for n in ("relevance", "prior")} for _ in range(2))


def factors(fused: StageFusion) -> dict[str, np.ndarray]:
    return {f"original.{n}": v for n, v in fused.original_factors.items()} | {
        f"rewrite.{n}": v for n, v in fused.rewrite_factors.items()
    }


LOGGED = {n: np.array(json.loads(json.dumps(v.tolist()))) for n, v in factors(evaluate_stage(SPEC.finerank, OWN, NEW)).items()}


def test_the_same_spec_replays_exactly() -> None:
    found = replay(LOGGED, factors(evaluate_stage(SPEC.finerank, OWN, NEW)))
    assert (found.share_agreeing, found.compared, found.worst) == (1.0, 3 * 40 * 25, 0.0)


def test_the_tolerance_is_absolute_and_inclusive() -> None:
    found = replay({"x": np.array([1.0, 1.0, 1.0])}, {"x": np.array([1.0 + 9e-7, 1.0 - 2e-6, 1.0])})
    assert found.share_agreeing == pytest.approx(2 / 3)
    assert found.worst == pytest.approx(2e-6)
    assert replay({"x": np.array([0.5])}, {"x": np.array([0.25])}, tolerance=0.25).share_agreeing == 1.0


@pytest.mark.parametrize("change", [{"exponent": 0.45}, {"eps": 0.3}, {"hi": 2.0}, {"lo": 0.5}])
def test_a_changed_spec_is_detected(change: dict) -> None:
    stage = SPEC.finerank
    altered = stage.model_copy(update={"rewrite": (stage.rewrite[0].model_copy(update=change),)})
    found = replay(LOGGED, factors(evaluate_stage(altered, OWN, NEW)))
    assert found.share_agreeing < 0.999
    assert found.worst > 1e-3


def test_nan_never_agrees() -> None:
    nan = {"x": np.array([np.nan, 1.0])}
    assert replay(nan, nan).share_agreeing == 0.5
    assert replay(nan, nan).worst == np.inf


@pytest.mark.parametrize(
    ("logged", "recomputed", "message"),
    [
        ({"x": np.ones(2)}, {"y": np.ones(2)}, "factor 'x' was logged but not recomputed"),
        ({"x": np.ones(2)}, {"x": np.ones(3)}, "factor 'x' was logged but not recomputed in the same shape"),
        ({}, {}, "nothing to replay"),
        ({"x": np.ones(0)}, {"x": np.ones(0)}, "nothing to replay"),
    ],
)
def test_refusals(logged: dict, recomputed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replay(logged, recomputed)
