"""Rows of the gradient pass, packed and plain, against each response alone; the plan of steps."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, MistralConfig

from corewrite.domain import Context, Query
from corewrite.rewriter import Rewriter
from corewrite.rewriter.paths import ModelPaths
from corewrite.training import ScoredCandidate
from corewrite.training.pairs import Pair
from corewrite.training.rows import Row, plan_steps, row_log_probs

TEXTS = ["cat show", "", "show show dog race", "game", "fish fish fish fish news", "bird", "cat dog", "news"]


def pair_of(policy, chosen, rejected):
    return Pair(*(ScoredCandidate(t, tuple(policy.template.encode_target(t)), r) for t, r in ((chosen, 0.5), (rejected, -0.5))))


def load_rows(policy, instances, k):
    """One to k pairs each, responses of one token to many, prompts with and without context."""
    rows = []
    for n, x in enumerate(instances[:5]):
        query = Query(x.query.text, Context(queries=("cat dog bird",) * (n % 3), titles=x.query.context.titles))
        pairs = [pair_of(policy, TEXTS[(n + i) % 8], TEXTS[(n + 4 - i) % 8]) for i in range(1 + n % k)]
        rows.append(Row(x.instance_id, tuple(policy.template.encode(query)), tuple(pairs)))
    assert max(len(r.pairs) for r in rows) == k and len({len(r.prompt) for r in rows}) > 1
    return rows


def by_hand(policy, prompt, response):
    log_probs = (
        policy.model(input_ids=torch.tensor([[*prompt, *response]], device=policy.model.device)).logits[0].log_softmax(-1)
    )
    return sum(log_probs[len(prompt) + t - 1, token] for t, token in enumerate(response))


def slopes(policy, values):
    """Of sums in which every pair counts differently."""
    weighted = sum((v * torch.arange(1, len(v) + 1, device=v.device).sin()).sum() * (i + 1) for i, v in enumerate(values))
    return torch.autograd.grad(weighted, policy.trained_parameters)


def compare(policy, rows):
    found = row_log_probs(policy, rows)
    expected = tuple(
        torch.stack([by_hand(policy, r.prompt, getattr(p, side).token_ids) for r in rows for p in r.pairs])
        for side in ("chosen", "rejected")
    )
    for values, right in zip(found, expected, strict=True):
        torch.testing.assert_close(values, right, atol=2e-5, rtol=1e-5)
    gradients, right = slopes(policy, found), slopes(policy, expected)
    largest = max(float(g.abs().max()) for g in right)
    assert max(float((a - b).abs().max()) for a, b in zip(gradients, right, strict=True)) <= 1e-4 * largest


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_rows_against_each_response_alone(start, instances, k, packed):
    policy = start.copy()
    policy._paths = ModelPaths(packed=packed, shared_prefix=True)
    calls = []
    policy.model.register_forward_pre_hook(lambda m, args, options: calls.append(options["input_ids"].shape), with_kwargs=True)
    rows = load_rows(policy, instances, k)
    row_log_probs(policy, rows)
    # One row an instance, or one a response.
    ((height, width),) = calls
    assert height == (len(rows) if packed else sum(len(r.responses) for r in rows))
    assert not packed or width == max(r.tokens for r in rows)
    compare(policy, rows)


SHAPE = {"hidden_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
REFUSED = {
    "mistral, window 8": lambda n: MistralConfig(
        vocab_size=n, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
        max_position_embeddings=256, **SHAPE,
    ),
    "bloom": lambda n: BloomConfig(vocab_size=n, n_layer=2, n_head=4, **SHAPE),
    "mamba": lambda n: MambaConfig(vocab_size=n, num_hidden_layers=2, state_size=4, **SHAPE),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_packed_learn_the_same(name, start, instances):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(REFUSED[name](len(start.tokenizer))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    policy = Rewriter(model, start.tokenizer, start.template)
    assert not policy.paths.packed
    compare(policy, load_rows(policy, instances, 2))


def candidate(length):
    return ScoredCandidate("x", tuple(range(length)), 0.0)


def test_tokens_of_a_row():
    row = Row("q", (1, 2, 3), (Pair(candidate(4), candidate(1)), Pair(candidate(2), candidate(3))))
    assert [len(y) for y in row.responses] == [4, 2, 1, 3]  # chosen, then rejected
    assert row.tokens == 3 + 3 + 1 + 0 + 2


length = st.integers(1, 9)
made = st.lists(st.tuples(st.integers(1, 30), st.lists(st.tuples(length, length), min_size=1, max_size=4)), max_size=30)
seed = st.integers(0, 2**32)


def rows_from(shapes):
    return [
        Row(f"q{i}", tuple(range(n)), tuple(Pair(candidate(a), candidate(b)) for a, b in pairs))
        for i, (n, pairs) in enumerate(shapes)
    ]


@given(made, st.integers(1, 12), st.integers(1, 200), seed, st.integers(0, 9))
def test_a_plan_is_one_pass(shapes, pairs_per_step, budget, seed, phase):
    rows = rows_from(shapes)
    steps = plan_steps(rows, pairs_per_step, budget, seed=seed, phase=phase)
    assert sorted(i for s in steps for m in s.micro_batches for i in m) == list(range(len(rows)))
    for step in steps:
        counts = [len(rows[i].pairs) for m in step.micro_batches for i in m]
        assert step.pairs == sum(counts)
        assert step is steps[-1] or step.pairs >= pairs_per_step
        # No row too many: the last to come made it full.
        assert step.pairs - max(counts) < pairs_per_step
        for micro_batch in step.micro_batches:
            assert micro_batch
            assert len(micro_batch) == 1 or len(micro_batch) * max(rows[i].tokens for i in micro_batch) <= budget
        # Of similar length: sorted through the step, so two neighbours never could have shared a micro-batch ...
        ordered = [rows[i].tokens for m in step.micro_batches for i in m]
        assert ordered == sorted(ordered)
        # ... and none stands alone that would have fitted the one before.
        for before, after in pairwise(step.micro_batches):
            assert (len(before) + 1) * rows[after[0]].tokens > budget
    assert steps == plan_steps(rows, pairs_per_step, budget, seed=seed, phase=phase)


@given(made, st.integers(1, 12), seed)
def test_the_budget_changes_no_step(shapes, pairs_per_step, seed):
    """Memory only: each step holds the same rows whatever fits at once."""
    rows = rows_from(shapes)
    plans = [plan_steps(rows, pairs_per_step, budget, seed=seed, phase=0) for budget in (1, 60, 10**6)]
    for small, middle, whole in zip(*plans, strict=True):
        assert len(whole.micro_batches) == 1 and {len(m) for m in small.micro_batches} == {1}
        members = [Counter(i for m in s.micro_batches for i in m) for s in (small, middle, whole)]
        assert members[0] == members[1] == members[2]


@given(seed, st.integers(0, 50))
def test_the_order_follows_seed_and_phase(seed, phase):
    rows = rows_from([(3, [(2, 2)])] * 40)

    def order(seed, phase):
        return [s.micro_batches for s in plan_steps(rows, 1, 100, seed=seed, phase=phase)]

    assert order(seed, phase) == order(seed, phase)
    assert order(seed, phase) != order(seed, phase + 1) and order(seed, phase) != order(seed + 1, phase)
    assert order(seed, phase) != [((i,),) for i in range(40)]


def test_every_row_may_come_first():
    rows = rows_from([(3, [(2, 2)])] * 5)
    first = Counter(plan_steps(rows, 1, 100, seed=seed, phase=0)[0].micro_batches[0][0] for seed in range(500))
    assert set(first) == set(range(5)) and min(first.values()) > 60


def test_the_budget_holds_for_models_that_cannot_be_packed(start, instances):
    policy = start.copy()
    policy._paths = ModelPaths(packed=False, shared_prefix=False)
    rows, sizes = load_rows(policy, instances, 4), []
    policy.model.register_forward_pre_hook(
        lambda m, args, options: sizes.append(options["input_ids"].numel()), with_kwargs=True
    )
    budget = max(r.plain_tokens for r in rows)
    for step in plan_steps(rows, 100, budget, seed=0, phase=0, packed=False):
        for micro_batch in step.micro_batches:
            row_log_probs(policy, [rows[i] for i in micro_batch])
    assert max(sizes) <= budget
