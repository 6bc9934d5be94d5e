"""Which engine samples and what is trained, by the settings."""

import pytest
import torch

from corewrite.cycle import PipelineConfig
from corewrite.cycle.training_run import open_sampler, to_train
from corewrite.rewriter import merged, new_small_decoder
from corewrite.training.samplers.server import ServerEngine


@pytest.fixture(scope="module")
def warm():
    return new_small_decoder(["a cat", "a dog"] * 5, seed=0, vocabulary=300, width=32, layers=1, heads=2)


def test_without_settings_this_process_samples_and_all_weights_are_trained(warm):
    config = PipelineConfig()
    with open_sampler(config, warm) as engine:
        assert engine is None
    policy = to_train(warm, config, 0)
    assert policy.policy_hash == warm.policy_hash and policy.model is not warm.model
    assert len(policy.trained_parameters) == len(list(warm.model.parameters()))


def test_a_server_in_the_settings_samples(warm, tmp_path):
    pytest.importorskip("httpx")
    server = {"url": "http://127.0.0.1:9", "model_folder": str(tmp_path), "reload": "weights", "log_prob_mismatch_limit": 0.01}
    with open_sampler(PipelineConfig.model_validate({"server": server}), warm) as engine:
        assert isinstance(engine, ServerEngine) and engine.log_prob_mismatch_limit == 0.01


def test_an_adapter_in_the_settings_is_all_that_is_trained_and_is_merged_for_serving(warm):
    pytest.importorskip("peft")
    policy = to_train(warm, PipelineConfig.model_validate({"training": {"lora": {"rank": 2, "alpha": 4}}}), 0)
    assert 0 < sum(p.numel() for p in policy.trained_parameters) < 0.3 * warm.parameters
    for name, p in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    served = merged(policy)
    assert type(served.model) is type(warm.model)
    assert served.policy_hash != warm.policy_hash
