"""What earlier versions wrote under other names: settings, their hashes, and facts in the record of a phase."""

import json

import pytest
from pydantic import ValidationError

from corewrite.capacity.plan import Workload
from corewrite.domain.settings import same_settings
from corewrite.training import RunFolder, TrainingConfig
from corewrite.training.config import first_names, present_names

FIRST = {
    "phases": 2, "instances_per_phase": 3000, "samples": 8, "k": 1, "minimum_gap": 0.05, "beta": 0.2, "weight_preference": 0.8,
    "weight_quality": 0.2, "weight_generation": 0.1, "running_delta": True, "length_normalised": False, "learning_rate": 4e-4,
    "adam_epsilon": 1e-4, "clip": 0.5, "pairs_per_step": 128, "tokens_per_micro_batch": 8192, "max_new_tokens": 14,
    "refresh_reference": False, "identity": True, "precision": "float32", "sampler_precision": "auto",
    "scoring": {"batch": 4096, "workers": 1, "retries": 2, "deadline_seconds": None}, "overlap": False,
    "checkpoint_minutes": 10.0, "lora": None,
}  # fmt: skip
"""`config` of a run.json of version 0.1.0."""


def test_settings_under_their_first_names_are_read_and_hashed_as_they_were():
    given = TrainingConfig(phases=2, num_generations=8, minimum_gap=0.05, max_grad_norm=0.5, sync_ref_model=False)
    config = given.with_former_defaults()
    assert TrainingConfig.model_validate(FIRST) == config != given
    named = first_names(config.model_dump(mode="json"))
    assert named.pop("patience") == 2 and named == FIRST  # a run that does not name its patience goes on with none
    assert TrainingConfig.model_validate(present_names(FIRST)) == config
    with pytest.raises(ValidationError, match="samples"):
        TrainingConfig.model_validate({"samples": 8, "num_generations": 8})


def test_settings_stored_under_first_names_are_the_same_settings():
    """A study's folder goes on, also under the default precision of today."""
    config = TrainingConfig.model_validate(FIRST)
    assert same_settings(FIRST, config.model_copy(update={"precision": "auto"}))
    assert not same_settings(FIRST, config.model_copy(update={"precision": "bfloat16"}))
    # The gap that was the default then gives other pairs: one that is left to the default of today is another run.
    assert not same_settings(FIRST, config.model_copy(update={"minimum_gap": TrainingConfig().minimum_gap}))
    assert same_settings(FIRST, config) and same_settings(config.model_dump(mode="json"), config)
    assert not same_settings({**FIRST, "samples": 9}, config) and not same_settings({**FIRST, "unknown": 1}, config)


def test_the_mismatch_of_an_earlier_record_is_read_under_its_present_name(tmp_path):
    run = RunFolder(tmp_path, {})
    run.write_record(0, {"optimizer_steps": 1, "sampler_drift": 0.125})
    assert json.loads((tmp_path / "phases/000/record.json").read_text())["sampler_drift"] == 0.125
    assert run.records() == [{"optimizer_steps": 1, "log_prob_mismatch": 0.125}]


def test_the_workload_of_an_earlier_plan_is_read():
    saved = {
        "instances": 1_000, "phases": 10, "samples": 8, "k": 2, "prompt_tokens": 40.0, "rewrite_tokens": 5.0,
        "distinct_prompts": 0.5, "new_texts": 0.25, "paired": 0.8, "filled": 0.75, "row_prompt_tokens": 30.0,
        "pair_tokens": 6.0, "identity": True, "pairs_per_step": 50, "synced_bytes": 4_000, "refresh_reference": True,
        "workers": 1,
    }  # fmt: skip
    found = Workload(**present_names(saved))
    assert (found.num_generations, found.sync_ref_model) == (8, True)
