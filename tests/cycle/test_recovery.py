"""What a cycle does differently after a REJECT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corewrite.cycle.records import RankerHashes
from corewrite.cycle.recovery import mitigated, mitigations, shown_rate, stuck, suspicious, verdicts_in_a_row
from corewrite.training import TrainingConfig


def record(
    verdict: str, model: str = "m1", spec: str = "s1", mitigation: str | None = None, applied: tuple[str, ...] = ()
) -> dict[str, object]:
    return {
        "verdict": verdict, "relevance": model, "spec": spec, "mitigations": [mitigation] if mitigation else [],
        "mitigations_applied": list(applied),
    }  # fmt: skip


def test_only_the_latest_rejects_count() -> None:
    history = [
        record("reject", mitigation="length_control"), record("promote"), record("reject", mitigation="stronger_kl"),
        record("reject", mitigation="lower_rate"),
    ]  # fmt: skip
    assert mitigations(history) == ["stronger_kl", "lower_rate"]
    assert verdicts_in_a_row(history, "reject") == 2
    assert mitigations([*history, record("hold")]) == []
    assert mitigations([]) == []
    assert mitigations([record("reject", mitigation="wider_pair_margin")] * 9) == ["wider_pair_margin"] * 3


def test_mitigations_change_what_they_name() -> None:
    plain = TrainingConfig(beta=0.2, learning_rate=4e-4, sync_ref_model=True, weight_generation=0.1)
    assert mitigated(plain, []) == plain
    closer = mitigated(plain, ["stronger_kl", "stronger_kl"])
    assert (closer.beta, closer.learning_rate, closer.sync_ref_model) == (0.8, 1e-4, False)
    assert mitigated(plain, ["length_control"]).length_normalised
    assert mitigated(plain, ["higher_sft_weight"] * 3).weight_generation == pytest.approx(0.3)
    none, much = (TrainingConfig(weight_generation=w) for w in (0.0, 1.0))
    assert [mitigated(c, ["higher_sft_weight"]).weight_generation for c in (none, much)] == pytest.approx([0.1, 1.0])
    assert mitigated(plain, ["none"]) == plain
    with pytest.raises(ValueError, match="'pray' is unknown"):
        mitigated(plain, ["pray"])


@pytest.mark.parametrize(
    "name", ["stronger_kl", "length_control", "wider_pair_margin", "higher_sft_weight", "lower_rate", "none"]
)
def test_what_is_shown_first_is_held_back_with_the_training(name: str) -> None:
    plain = TrainingConfig()
    for n in range(4):
        share = mitigated(plain, [name] * n).learning_rate / plain.learning_rate
        assert shown_rate(5e-4, [name] * n) == pytest.approx(5e-4 * share)


@pytest.mark.parametrize(
    ("earlier", "now"),
    [("hold_closer", "stronger_kl"), ("keep_query", "wider_pair_margin"), ("more_imitation", "higher_sft_weight")],
)
def test_what_an_earlier_version_wrote_down_is_done_as_it_would_have(earlier: str, now: str) -> None:
    plain = TrainingConfig(weight_generation=0.1)
    assert mitigated(plain, [earlier]) == mitigated(plain, [now]) != plain
    assert mitigations([record("reject", mitigation=earlier)]) == [now]


def test_rejects_in_a_row_raise_an_alarm() -> None:
    rejects = [record("promote"), *[record("reject", f"m{k}") for k in range(4)]]
    assert stuck(rejects[:4], 4) == [] and "4 candidates in a row" in stuck(rejects, 4)[0]
    assert stuck([*rejects, record("hold")], 4) == []


def test_a_new_model_under_which_nothing_is_promoted_is_suspected() -> None:
    sound = [record("promote", "m1"), record("hold", "m1")]
    once = [*sound, record("reject", "m2")]
    assert suspicious(once, 2) is None
    twice = [*once, record("reject", "m2")]
    assert suspicious(twice, 2) == RankerHashes("m1", "s1")
    assert suspicious(twice, 3) is None


def test_a_model_that_has_been_promoted_under_is_trusted() -> None:
    assert (
        suspicious([record("promote", "m1"), record("promote", "m2"), record("reject", "m2"), record("reject", "m2")], 2)
        is None
    )


def test_a_promotion_under_mitigations_does_not_speak_for_a_model() -> None:
    held_back = [record("promote"), record("reject", "m2"), record("promote", "m2", applied=("lower_rate",))]
    assert suspicious(held_back, 2) is None  # what is promoted is no sign against it either
    assert suspicious([*held_back, record("reject", "m2")], 2) == RankerHashes("m1", "s1")
    assert suspicious([*held_back, record("promote", "m2"), record("reject", "m2")], 2) is None
    again = [*held_back, record("reject", "m3"), record("reject", "m3")]
    assert suspicious(again, 2) == RankerHashes("m1", "s1")  # nor is it one to go back to


def test_what_is_gone_is_not_gone_back_to() -> None:
    history = [record("promote", "m0"), record("promote", "m1"), record("reject", "m2"), record("reject", "m2")]
    assert suspicious(history, 2) == RankerHashes("m1", "s1")
    assert suspicious(history, 2, lambda r: r["relevance"] != "m1") == RankerHashes("m0", "s1")
    assert suspicious(history, 2, lambda r: False) is None


def test_rejects_under_the_old_model_are_not_held_against_the_new_one() -> None:
    assert suspicious([record("promote", "m1"), record("reject", "m1"), record("reject", "m2")], 2) is None


def test_a_spec_is_suspected_like_a_model() -> None:
    history = [record("promote"), record("reject", spec="s2"), record("reject", spec="s2")]
    assert suspicious(history, 2) == RankerHashes("m1", "s1")


def test_without_a_sound_one_there_is_nothing_to_go_back_to() -> None:
    assert suspicious([record("reject", "m2"), record("reject", "m2")], 2) is None


@given(st.lists(st.tuples(st.sampled_from(["promote", "hold", "reject"]), st.sampled_from(["m1", "m2", "m3"])), max_size=12))
def test_what_is_gone_back_to_was_promoted_under_and_is_another(found: list[tuple[str, str]]) -> None:
    history = [record(v, m) for v, m in found]
    back = suspicious(history, 2)
    if back is not None:
        assert ("promote", back.relevance) in found
        assert back.relevance != found[-1][1]
        assert found[-1][0] == "reject"
        assert sum(v == "reject" for v, m in found if m == found[-1][1]) >= 2
