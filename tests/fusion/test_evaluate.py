"""The algebra of one stage against the formula written out, and its promises as properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import SignalStatus
from corewrite.fusion import (
    OriginalSignal,
    RewriteSignal,
    StageSpec,
    evaluate_stage,
    explain_stage,
    stage_bound,
    swap_bound,
)

NAMES = ("a", "b", "c")
REQUESTS, DOCUMENTS = 3, 6


@st.composite
def stages(draw: st.DrawFn, forms: tuple[str, ...] = ("original", "constant")) -> StageSpec:
    unit = st.floats(0.01, 1)
    original = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1)):
        eps = draw(st.floats(1e-6, 0.5))
        original.append(
            OriginalSignal(signal=name, eps=eps, top=eps + draw(st.floats(0.1, 2)), exponent=draw(st.floats(0.1, 3)))
        )
    exponents = {s.signal: s.exponent for s in original}
    rewrite = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1)):
        form = draw(st.sampled_from(forms))
        rewrite.append(
            RewriteSignal(
                signal=name,
                relative_to=form,
                n=draw(unit) if form == "constant" else None,
                eps=draw(unit),
                lo=draw(unit),
                hi=1 / draw(unit),
                exponent=draw(st.floats(0, 1)) * exponents.get(name, 2.0) / 2,
            )
        )
    return StageSpec(original=tuple(original), rewrite=tuple(rewrite))


def signals(seed: int) -> dict[str, np.ndarray]:
    """Signals that now and then lie below every floor, above every ceiling, or are equal."""
    rng = np.random.default_rng(seed)
    shape = (REQUESTS, DOCUMENTS)
    return {n: rng.choice([-1.0, 0.0, 0.5, 5.0, *rng.uniform(0, 2, 20)], shape) for n in NAMES}


SEEDS = st.integers(0, 2**32 - 1)


def without_rewrite(stage: StageSpec) -> StageSpec:
    return StageSpec(original=stage.original)


@given(stages(), SEEDS, SEEDS)
def test_score_is_the_formula(stage: StageSpec, seed: int, other: int) -> None:
    own, new = signals(seed), signals(other)
    fused = evaluate_stage(stage, own, new)
    for r in range(REQUESTS):
        for d in range(DOCUMENTS):
            score = 1.0
            for i in stage.original:
                score *= min(max(own[i.signal][r, d], i.eps), i.top) ** i.exponent
            for j in stage.rewrite:
                y, base = max(new[j.signal][r, d], j.eps), max(own[j.signal][r, d], j.eps)
                score *= min(max(y / (base if j.relative_to == "original" else j.n), j.lo), j.hi) ** j.exponent
            assert fused.score[r, d] == pytest.approx(score, rel=1e-9)
            assert math.prod(explain_stage(fused, (r, d)).values()) == pytest.approx(fused.score[r, d], rel=1e-9)


def test_golden() -> None:
    stage = StageSpec(
        original=(
            OriginalSignal(signal="rel", eps=0.01),
            OriginalSignal(signal="prior", eps=0.04, exponent=0.5),
        ),
        rewrite=(
            RewriteSignal(signal="rel", eps=0.1, lo=0.25, hi=4, exponent=0.5),
            RewriteSignal(signal="new", relative_to="constant", n=0.5, eps=0.02, lo=0.5, hi=2, exponent=1),
        ),
    )
    fused = evaluate_stage(
        stage,
        {"rel": np.array([0.2, 0.8, 0.0]), "prior": np.array([0.25, 0.01, 4.0]), "new": np.zeros(3)},
        {"rel": np.array([0.8, 0.05, 0.9]), "new": np.array([0.6, 0.0, 9.0])},
    )
    # rel: 0.8/0.2 = 4; 0.1/0.8 clipped to 1/4; 0.9/0.1 clipped to 4. new: 0.6/0.5; floored, clipped; clipped.
    assert fused.original_factors["rel"] == pytest.approx([0.2, 0.8, 0.01])
    assert fused.original_factors["prior"] == pytest.approx([0.5, 0.2, 1.0])
    assert fused.rewrite_factors["rel"] == pytest.approx([2.0, 0.5, 2.0])
    assert fused.rewrite_factors["new"] == pytest.approx([1.2, 0.5, 2.0])
    assert fused.score == pytest.approx([0.24, 0.04, 0.04])
    assert explain_stage(fused, (0,)) == pytest.approx(
        {"original.rel": 0.2, "original.prior": 0.5, "rewrite.rel": 2.0, "rewrite.new": 1.2}
    )


@given(stages(), SEEDS, SEEDS, st.lists(st.booleans(), min_size=REQUESTS, max_size=REQUESTS))
def test_an_absent_rewrite_is_byte_identical_to_none(stage: StageSpec, seed: int, other: int, off: list[bool]) -> None:
    own, new = signals(seed), signals(other)
    bare = evaluate_stage(without_rewrite(stage), own)
    nothing = evaluate_stage(stage, own)
    assert nothing.log_score.tobytes() == bare.log_score.tobytes()
    assert nothing.score.tobytes() == bare.score.tobytes()
    assert {s for row in nothing.status.values() for s in row} == {SignalStatus.OFF}
    # Some requests without it, the others with: the first are untouched.
    here = ~np.array(off)
    partly = evaluate_stage(stage, own, new, {j.signal: here for j in stage.rewrite})
    assert partly.log_score[off].tobytes() == bare.log_score[off].tobytes()
    whole = evaluate_stage(stage, own, new)
    assert partly.log_score[here].tobytes() == whole.log_score[here].tobytes()
    for status in partly.status.values():
        assert [s == SignalStatus.NEUTRAL for s in status] == off


@given(stages(forms=("original",)), SEEDS)
def test_the_identity_rewrite_is_exactly_neutral_in_the_ratio_form(stage: StageSpec, seed: int) -> None:
    own = signals(seed)
    same = evaluate_stage(stage, own, own)
    assert same.log_score.tobytes() == evaluate_stage(without_rewrite(stage), own).log_score.tobytes()
    assert not same.log_rewrite.any()
    assert all((f == 1.0).all() for f in same.rewrite_factors.values())


@given(stages(), SEEDS, SEEDS)
def test_no_rewrite_moves_a_score_beyond_the_bound(stage: StageSpec, seed: int, other: int) -> None:
    own, new = signals(seed), signals(other)
    moved = evaluate_stage(stage, own, new).log_score - evaluate_stage(stage, own).log_score
    assert np.abs(moved).max() <= stage_bound(stage) + 1e-9


@given(stages(), SEEDS, SEEDS)
def test_documents_further_apart_than_the_swap_bound_keep_their_order(stage: StageSpec, seed: int, other: int) -> None:
    fused = evaluate_stage(stage, signals(seed), signals(other))
    before = fused.log_original[:, :, None] - fused.log_original[:, None, :]
    after = fused.log_score[:, :, None] - fused.log_score[:, None, :]
    far = before > swap_bound(stage) + 1e-9
    assert (after[far] > 0).all()


def test_bounds_are_attained() -> None:
    stage = StageSpec(
        original=(OriginalSignal(signal="a", eps=0.01),),
        rewrite=(
            RewriteSignal(signal="a", eps=0.01, lo=0.25, hi=2, exponent=0.5),
            RewriteSignal(signal="b", relative_to="constant", n=1, eps=0.01, lo=0.5, hi=8, exponent=1),
        ),
    )
    assert stage_bound(stage) == pytest.approx(0.5 * math.log(4) + math.log(8))
    assert swap_bound(stage) == pytest.approx(0.5 * math.log(8) + math.log(16))
    own = {"a": np.array([0.1, 0.1]), "b": np.ones(2)}
    fused = evaluate_stage(stage, own, {"a": np.array([0.9, 0.001]), "b": np.array([9.0, 0.0])})
    assert fused.log_rewrite[0] - fused.log_rewrite[1] == pytest.approx(swap_bound(stage))


@given(stages(), SEEDS, SEEDS, st.integers(0, REQUESTS - 1), st.integers(0, DOCUMENTS - 1), st.booleans())
def test_an_error_on_one_document_is_neutral_for_its_whole_request(
    stage: StageSpec, seed: int, other: int, r: int, d: int, infinite: bool
) -> None:
    own, new = signals(seed), signals(other)
    failing = stage.rewrite[0].signal
    new[failing][r, d] = np.inf if infinite else np.nan
    fused = evaluate_stage(stage, own, new)
    assert (fused.rewrite_factors[failing][r] == 1.0).all()
    assert np.isfinite(fused.log_score).all()
    status = fused.status[failing]
    assert status[r] == SignalStatus.ERROR
    assert set(np.delete(status, r)) == {SignalStatus.OK}
    # Only this signal of this request is lost.
    rest = StageSpec(original=stage.original, rewrite=stage.rewrite[1:])
    assert fused.log_score[r] == pytest.approx(evaluate_stage(rest, own, new).log_score[r])
    # A document that is not there cannot fail.
    valid = np.ones((REQUESTS, DOCUMENTS), bool)
    valid[r, d] = False
    assert set(evaluate_stage(stage, own, new, valid=valid).status[failing]) == {SignalStatus.OK}


@given(stages(), SEEDS, SEEDS)
def test_unmatched_is_the_floor_not_absent(stage: StageSpec, seed: int, other: int) -> None:
    own, new = signals(seed), signals(other)
    floor = {n: v.copy() for n, v in new.items()}
    for j in stage.rewrite:
        new[j.signal][:, 0] = 0.0
        floor[j.signal][:, 0] = j.eps
    unmatched = evaluate_stage(stage, own, new)
    assert unmatched.log_score.tobytes() == evaluate_stage(stage, own, floor).log_score.tobytes()
    assert all((s == SignalStatus.OK).all() for s in unmatched.status.values())


@given(stages(), SEEDS, SEEDS)
def test_padding_changes_nothing_of_the_others(stage: StageSpec, seed: int, other: int) -> None:
    own, new = signals(seed), signals(other)
    valid = np.arange(DOCUMENTS) < np.array([[2], [DOCUMENTS], [4]])
    for values in (*own.values(), *new.values()):
        values[~valid] = np.nan
    fused = evaluate_stage(stage, own, new, valid=valid)
    assert (fused.log_score[~valid] == -np.inf).all() and (fused.score[~valid] == 0).all()
    assert not fused.log_rewrite[~valid].any()
    for r, width in enumerate([2, DOCUMENTS, 4]):
        alone = evaluate_stage(stage, {n: v[r, :width] for n, v in own.items()}, {n: v[r, :width] for n, v in new.items()})
        assert fused.log_score[r, :width].tobytes() == alone.log_score.tobytes()


def test_factors_beyond_the_range_of_doubles_still_rank() -> None:
    stage = StageSpec(original=(OriginalSignal(signal="a", eps=1e-200, exponent=4),))
    fused = evaluate_stage(stage, {"a": np.array([1e-100, 1e-150, 0.0])})
    assert fused.log_score == pytest.approx([-400 * math.log(10), -600 * math.log(10), -800 * math.log(10)])


STAGE = StageSpec(original=(OriginalSignal(signal="a", eps=0.1),), rewrite=(RewriteSignal(signal="b"),))


def test_a_missing_signal_is_named() -> None:
    with pytest.raises(KeyError, match=r"\['b'\] of the stage"):
        evaluate_stage(STAGE, {"a": np.ones(2)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_original_signal_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="original signal 'a' is not a finite number"):
        evaluate_stage(STAGE, {"a": np.array([1.0, bad]), "b": np.ones(2)})


def test_a_query_signal_that_fails_loses_the_ratio_not_the_ranking() -> None:
    fused = evaluate_stage(STAGE, {"a": np.ones(2), "b": np.array([1.0, np.nan])}, {"b": np.ones(2)})
    assert fused.log_score.tolist() == [0.0, 0.0]
    assert fused.status["b"][()] == SignalStatus.ERROR
