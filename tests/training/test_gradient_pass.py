"""The gradient pass in bfloat16 and compiled: exact where it must be, near float32 elsewhere."""

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from corewrite.domain import Context, Query
from corewrite.rewriter import Rewriter
from corewrite.training import ScoredCandidate, TrainingConfig
from corewrite.training.gradient_pass import GradientPass, resolved_precision
from corewrite.training.optimise import Cursor, new_optimizer, optimise, reference_log_probs
from corewrite.training.pairs import Pair
from corewrite.training.rows import Row, plan_steps

CONFIG = TrainingConfig(precision="bfloat16", learning_rate=1e-3, pairs_per_step=8, phases=1)
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
KINDS = {"llama": LlamaConfig, "qwen3": lambda **shape: Qwen3Config(head_dim=8, **shape)}


def policy_of(kind, like, attention="sdpa", **changes):
    torch.manual_seed(3)
    config = KINDS[kind](vocab_size=len(like.tokenizer), **(SHAPE | changes))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(like.model.device)
    return Rewriter(model.eval(), like.tokenizer, like.template)


def rows_of(policy, instances):
    """Of many widths, so that micro-batches of many shapes come."""
    found = []
    for n, x in enumerate(instances):
        query = Query(x.query.text, Context(titles=("cat dog bird fish " * (n % 5),) * (1 + n % 3)))
        texts = [(f"{x.query.text} show", ""), ("cat dog bird show show", "show")][: 1 + n % 2]
        ids = [[tuple(policy.template.encode_target(text)) for text in pair] for pair in texts]
        pairs = [Pair(ScoredCandidate("c", chosen, 0.5), ScoredCandidate("r", rejected, -0.5)) for chosen, rejected in ids]
        found.append(Row(x.instance_id, tuple(policy.template.encode(query)), tuple(pairs)))
    return found


def learn(policy, reference, rows, steps, passes, config=CONFIG):
    found = reference_log_probs(reference, rows, steps, config, gradient_pass=passes)
    optimizer = new_optimizer(policy, config)
    cursors = [Cursor()]
    optimise(
        policy, optimizer, rows, steps, found, Cursor(), config, phase=0, steps_before=20, after_step=cursors.append,
        gradient_pass=passes,
    )  # fmt: skip
    return cursors


@pytest.fixture(scope="module")
def compiled_runs(start, instances):
    """A compiled run, an equal one, and the graphs that the two made. (Its first compilation takes most of a minute.)"""
    counters.clear()
    runs = []
    for _ in range(2):
        policy = policy_of("qwen3", start, "eager")  # as on a GPU
        rows = rows_of(policy, instances)
        steps = plan_steps(rows, 8, 150, seed=1, phase=0)
        assert len({(len(m), max(rows[i].tokens for i in m)) for s in steps for m in s.micro_batches}) > 5
        cursors = learn(policy, policy.copy(), rows, steps, GradientPass(policy, CONFIG, compiled=True))
        runs.append((policy, cursors))
    return runs, counters["stats"]["unique_graphs"]


def test_compiled_equal_weights_give_a_ratio_of_exactly_zero(compiled_runs):
    (_, cursors), _ = compiled_runs[0]
    first = cursors[1]
    assert first.sums["rho_chosen"] == first.sums["rho_rejected"] == 0.0 and first.sums["pairs"] >= 8
    assert cursors[-1].sums["rho_chosen"] != 0.0


def test_compiled_twice_it_is_bitwise_the_same(compiled_runs):
    (a, cursors), (b, others) = compiled_runs[0]
    assert a.policy_hash == b.policy_hash and cursors == others


def test_few_graphs_serve_all_shapes(compiled_runs):
    """And both runs."""
    assert 1 <= compiled_runs[1] <= 4


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_near_those_of_float32(start, instances, kind, compiled):
    gradients = []
    for config in (CONFIG, CONFIG.model_copy(update={"precision": "float32"})):
        policy = policy_of(kind, start)
        passes = GradientPass(policy, config, compiled=compiled and config is CONFIG)
        rows = rows_of(policy, instances[:6])
        held = passes.holding(policy)
        for members in (rows[:2], rows[2:]):  # gradients of micro-batches add up
            chosen, rejected = passes.log_probs(held, members)
            (chosen.sum() - 2 * rejected.sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trained_parameters]))
        assert all(p.grad.dtype == torch.float32 for p in policy.trained_parameters)
        assert held is policy or all(p.grad is None for p in held.trained_parameters)
    rough, exact = gradients
    assert float(torch.nn.functional.cosine_similarity(rough, exact, dim=0)) > 0.999
    assert not torch.equal(rough, exact)


def test_what_is_stepped_is_float32_and_small_steps_are_not_lost(start, instances):
    """bfloat16 weights would not move at all by steps of 1e-6 of them."""
    policy = policy_of("llama", start)
    before = {name: value.clone() for name, value in policy.trained_state().items()}
    config = CONFIG.model_copy(update={"learning_rate": 1e-6})
    rows = rows_of(policy, instances)
    steps = plan_steps(rows, 8, 400, seed=1, phase=0)
    learn(policy, policy.copy(torch.bfloat16), rows, steps, GradientPass(policy, config), config)
    moved = {name: float((value != before[name]).float().mean()) for name, value in policy.trained_state().items()}
    assert all(value.dtype == torch.float32 for value in policy.trained_state().values())
    assert min(share for name, share in moved.items() if "layers" in name) > 0.5


def test_a_reference_that_is_only_kept_rounded_is_the_same(start, instances):
    policy = policy_of("qwen3", start)
    rows = rows_of(policy, instances[:8])
    steps = plan_steps(rows, 8, 400, seed=1, phase=0)
    passes = GradientPass(policy, CONFIG)
    kept = [reference_log_probs(policy.copy(t), rows, steps, CONFIG, gradient_pass=passes) for t in (None, torch.bfloat16)]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(a, b) for key in kept[0] for a, b in zip(kept[0][key], kept[1][key], strict=True))


def test_one_graph_too_many_is_an_error(start, instances, monkeypatch):
    monkeypatch.setattr("corewrite.training.gradient_pass._GRAPHS", 1)
    policy = policy_of("llama", start, intermediate_size=40)  # of a shape that has no graph yet
    passes = GradientPass(policy, CONFIG, compiled=True)
    held = passes.holding(policy)
    rows = rows_of(policy, instances[:3])
    passes.log_probs(held, rows[:2])
    with torch.no_grad(), pytest.raises(Exception, match="recompile_limit"):
        passes.log_probs(held, rows[:2])  # a graph without gradients is another one
    # Graphs are shared by all runs of a process, their limit is each run's own.
    another = GradientPass(policy, CONFIG, compiled=True)
    with torch.no_grad():
        another.log_probs(another.holding(policy), rows[:2])


def test_auto_is_float32_on_a_processor():
    assert resolved_precision("auto", torch.device("cpu")) == "float32"
    assert resolved_precision("bfloat16", torch.device("cpu")) == "bfloat16"
