"""Low-rank adapters: on top of the frozen base while trained, one with it when served."""

import json
import sys

import pytest
import torch

from corewrite.rewriter import Rewriter, RewriterError, greedy, load_rewriter, merged, response_log_probs, sample, with_adapter

pytest.importorskip("peft")
PROMPTS, RESPONSES = [[5, 6, 7, 8], [9], [10, 11, 12]], [[20, 21, 1], [1], [30, 31, 32, 33, 34]]


@torch.no_grad()
def says(policy: Rewriter) -> torch.Tensor:
    return response_log_probs(policy.model, PROMPTS, RESPONSES)


@torch.no_grad()
def taught(policy: Rewriter, seed: int = 0) -> Rewriter:
    """Random adapter weights, in place."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trained_parameters:
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def adapted(rewriter: Rewriter) -> Rewriter:
    return with_adapter(rewriter, rank=4, alpha=8, seed=7)


def test_a_fresh_adapter_says_what_the_base_says(rewriter, adapted):
    assert torch.equal(says(adapted), says(rewriter))
    assert not adapted.model.training


def test_only_the_adapter_is_trained(rewriter, adapted):
    names = list(adapted.trained_state())
    # Seven linear layers in each of two blocks, two factors each; the head, which is the embedding, has none.
    assert len(names) == 2 * 7 * 2 and all(".lora_A." in n or ".lora_B." in n for n in names)
    assert {p.shape[0 if ".lora_A." in n else 1] for n, p in adapted.trained_state().items()} == {4}
    assert sum(p.numel() for p in adapted.trained_parameters) < 0.5 * rewriter.parameters
    response_log_probs(adapted.model, PROMPTS, RESPONSES).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in adapted.model.parameters())
    # The base itself stays as it was, all of it to be trained.
    assert len(rewriter.trained_parameters) == len(list(rewriter.model.parameters()))
    assert not any(p.grad is not None for p in rewriter.model.parameters())


def test_the_scale_is_alpha_over_rank(rewriter):
    """The effect of alpha and rank, from the definition: W + alpha / rank B A."""
    policy = taught(with_adapter(rewriter, rank=4, alpha=12, targets=["v_proj"], seed=7))
    state = policy.trained_state()
    by_hand = rewriter.copy()
    with torch.no_grad():
        for layer in range(2):
            a, b = (state[f"base_model.model.model.layers.{layer}.self_attn.v_proj.lora_{x}.default.weight"] for x in "AB")
            by_hand.model.model.layers[layer].self_attn.v_proj.weight += 3.0 * b @ a
    assert len(state) == 4
    assert float((says(policy) - says(rewriter)).abs().max()) > 0.01
    torch.testing.assert_close(says(policy), says(by_hand), atol=1e-5, rtol=0)


def test_the_first_weights_follow_the_seed(rewriter, adapted):
    again, other = (with_adapter(rewriter, rank=4, alpha=8, seed=seed).trained_state() for seed in (7, 8))
    own = adapted.trained_state()
    assert all(torch.equal(own[n], again[n]) for n in own)
    assert all(torch.equal(own[n], other[n]) == (".lora_B." in n) for n in own)


def check_merged(policy: Rewriter):
    before, base = says(policy), {n: p.clone() for n, p in policy.model.named_parameters()}
    one = merged(policy)
    assert not any("lora" in n for n, _ in one.model.named_parameters())
    assert len(one.trained_parameters) == len(list(one.model.parameters()))
    torch.testing.assert_close(says(one), before, atol=1e-5, rtol=0)
    # The policy goes on with its adapter.
    assert all(torch.equal(p, base[n]) for n, p in policy.model.named_parameters())
    assert torch.equal(says(policy), before)


def test_merged_equals_unmerged(rewriter, adapted):
    taught(adapted)
    assert float((says(adapted) - says(rewriter)).abs().max()) > 0.1
    check_merged(adapted)


def test_merged_equals_unmerged_of_other_models(plain_folder):
    """GPT-2's linear layers are transposed, Llama's head here is not the embedding."""
    policy = taught(with_adapter(load_rewriter(plain_folder), rank=2, alpha=4, seed=1))
    check_merged(policy)


def test_a_rewriter_without_adapter_is_its_own_merger(rewriter):
    assert merged(rewriter) is rewriter


def test_a_copy_shares_what_is_frozen(adapted):
    taught(adapted)
    twin = adapted.copy()
    own, others = dict(adapted.model.named_parameters()), dict(twin.model.named_parameters())
    assert own.keys() == others.keys() and any(p.requires_grad for p in own.values())
    for name, parameter in own.items():
        assert others[name].requires_grad == parameter.requires_grad
        assert torch.equal(others[name], parameter)
        assert (others[name].data_ptr() == parameter.data_ptr()) == (not parameter.requires_grad)
    # So the twin keeps what it says while the policy learns.
    before = says(twin)
    taught(adapted, seed=1)
    assert torch.equal(says(twin), before) and not torch.equal(says(adapted), before)


def test_a_copy_in_another_precision_shares_nothing(adapted):
    twin = adapted.copy(torch.bfloat16)
    assert {p.dtype for p in twin.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in adapted.model.parameters()} == {torch.float32}
    assert [p.requires_grad for p in twin.model.parameters()] == [p.requires_grad for p in adapted.model.parameters()]


def test_rotary_frequencies_stay_as_they_are_in_another_precision(rewriter):
    own, others = dict(rewriter.model.named_buffers()), dict(rewriter.copy(torch.bfloat16).model.named_buffers())
    assert own and all(torch.equal(others[name], values) and others[name].dtype == values.dtype for name, values in own.items())


def test_the_hash_tells_adapters_and_bases_apart(rewriter, adapted):
    first = adapted.policy_hash
    assert first == adapted.policy_hash == adapted.copy().policy_hash
    assert with_adapter(rewriter, rank=4, alpha=8, seed=7).policy_hash == first
    assert with_adapter(rewriter, rank=4, alpha=8, seed=8).policy_hash != first
    other = rewriter.copy()
    with torch.no_grad():
        other.model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    assert with_adapter(other, rank=4, alpha=8, seed=7).policy_hash != first
    with torch.no_grad():
        adapted.trained_parameters[-1][0, 0] += 1e-3
    assert adapted.policy_hash not in (first, rewriter.policy_hash)


def test_short_cuts_and_sampling_with_an_adapter(adapted, queries):
    taught(adapted)
    assert adapted.paths.packed and adapted.paths.shared_prefix
    one = merged(adapted)
    prompts = [adapted.template.encode(q) for q in queries]
    options = {"keys": range(len(prompts)), "seed": 1, "phase": 0, "max_new_tokens": 5}
    found = [sample(policy, prompts, 3, **options) for policy in (adapted, one)]
    assert [[c.token_ids for c in row] for row in found[0]] == [[c.token_ids for c in row] for row in found[1]]


def test_served_as_a_plain_folder(adapted, tmp_path, queries):
    one = merged(taught(adapted))
    one.save(tmp_path)
    assert not [f.name for f in tmp_path.iterdir() if "adapter" in f.name or f.name == "README.md"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "peft" not in json.dumps(config)
    loaded = load_rewriter(tmp_path)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert loaded.policy_hash == one.policy_hash
    assert torch.equal(says(loaded), says(one))
    assert greedy(loaded, queries, max_new_tokens=5) == greedy(one, queries, max_new_tokens=5)


def test_a_name_that_no_layer_has(rewriter):
    with pytest.raises(RewriterError, match=r"no adapter for quary_proj: .*quary_proj"):
        with_adapter(rewriter, rank=4, alpha=8, targets=["quary_proj"], seed=7)


def test_a_name_that_no_layer_has_beside_one_that_some_have(rewriter):
    with pytest.raises(RewriterError, match="vau_proj"):
        with_adapter(rewriter, rank=4, alpha=8, targets=["q_proj", "vau_proj"], seed=7)


def test_an_adapter_on_a_head_that_is_the_embedding(rewriter):
    """Merged it would change the embedding: refused, or told apart."""
    try:
        policy = with_adapter(rewriter, rank=4, alpha=8, targets=["lm_head"], seed=7)
    except RewriterError:
        return
    check_merged(taught(policy))


def test_an_adapter_saved_unmerged(adapted, tmp_path):
    """Saved whole, or refused."""
    try:
        adapted.save(tmp_path)
    except RewriterError:
        return
    assert (tmp_path / "config.json").is_file() and not (tmp_path / "adapter_config.json").exists()


def test_an_adapter_on_the_embedding(rewriter):
    assert with_adapter(rewriter, rank=4, alpha=8, targets=["embed_tokens"], seed=7).paths.shared_prefix


def test_an_adapter_without_peft(rewriter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RewriterError, match=r"pip install 'corewrite\[lora\]'"):
        with_adapter(rewriter, rank=4, alpha=8, seed=7)


def test_learning_moves_the_adapter_alone(adapted):
    """A step up the log-probability of one answer, and what was frozen is as it was."""
    frozen = {n: p.clone() for n, p in adapted.model.named_parameters() if not p.requires_grad}
    before = says(adapted).sum()
    optimizer = torch.optim.SGD(adapted.trained_parameters, 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (-response_log_probs(adapted.model, PROMPTS, RESPONSES).sum() / 8).backward()
        optimizer.step()
    assert says(adapted).sum() > before + 0.01
    assert all(torch.equal(p, frozen[n]) for n, p in adapted.model.named_parameters() if not p.requires_grad)
