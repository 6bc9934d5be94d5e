"""Steps: micro-batches of any size, and processes, add up to one batch; rho starts at exactly 0."""

import math
import os

import pytest
import torch
import torch.multiprocessing as mp

from corewrite.domain import Context, Query
from corewrite.training import RewardShift, ScoredCandidate, TrainingConfig
from corewrite.training.optimise import Cursor, new_optimizer, optimise, reference_log_probs
from corewrite.training.pairs import Pair
from corewrite.training.rows import Row, Step, plan_steps, row_log_probs


def load_rows(policy, instances, k=1):
    """Rows of unequal length: prompts with and without context, responses of one token to many."""
    found = []
    for n, x in enumerate(instances):
        query = Query(x.query.text, Context(queries=("a b c d",) * (n % 3), titles=x.query.context.titles))
        texts = [(f"{x.query.text} show", ""), ("cat dog bird show show", "show")][:k]
        ids = [[tuple(policy.template.encode_target(text)) for text in pair] for pair in texts]
        pairs = [Pair(ScoredCandidate("c", chosen, 0.5), ScoredCandidate("r", rejected, -0.5)) for chosen, rejected in ids]
        found.append(Row(x.instance_id, tuple(policy.template.encode(query)), tuple(pairs)))
    return found


def one_step(policy, rows, steps, config, reference_policy):
    reference = reference_log_probs(reference_policy, rows, steps, config)
    optimizer = torch.optim.SGD(policy.trained_parameters, 1.0)
    return optimise(policy, optimizer, rows, steps, reference, Cursor(), config, phase=0, steps_before=100)


CONFIG = TrainingConfig(learning_rate=1e-2, max_grad_norm=1e9, phases=1)


def moved(start):
    """Another policy than the reference, so that every term of the loss has a gradient of its own."""
    policy = start.copy()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=generator).to(p.device)
    return policy


def test_unequal_micro_batches_equal_one_batch(start, instances):
    """1 + 3 + 4 rows against 8 at once."""
    results = []
    for micro_batches in (((0,), (1, 2, 3), (4, 5, 6, 7)), (tuple(range(8)),)):
        policy = moved(start)
        rows = load_rows(policy, instances[:8], k=2)
        cursor = one_step(policy, rows, [Step(micro_batches, 16)], CONFIG, start)
        results.append((policy, cursor))
    (a, parts), (b, whole) = results
    assert parts.summary()["losses"] == pytest.approx(whole.summary()["losses"], rel=1e-5)
    assert parts.shift.total == pytest.approx(whole.shift.total, abs=1e-5) and parts.shift.count == whole.shift.count == 32
    steps = {n: p - q for (n, p), q in zip(a.model.named_parameters(), moved(start).model.parameters(), strict=True)}
    largest = max(float(s.detach().abs().max()) for s in steps.values())
    assert largest > 1e-4
    for (name, left), right in zip(a.model.named_parameters(), b.model.parameters(), strict=True):
        assert float((left - right).detach().abs().max()) < 1e-4 * largest, name


def distributed(number, port, start, instances, out, micro_batches):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=2)
    policy = moved(start)
    rows = load_rows(policy, instances[:8], k=2)
    cursor = one_step(policy, rows, [Step(micro_batches, 16)], CONFIG, start)
    out[number] = ({n: p.detach().clone() for n, p in policy.model.named_parameters()}, cursor)
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which a GPU's context does not survive")
@pytest.mark.parametrize("micro_batches", [((0,), (1, 2, 3), (4, 5, 6, 7)), (tuple(range(8)),)], ids=["5+3 rows", "8+0 rows"])
def test_two_processes_of_unequal_shares_equal_one(start, instances, micro_batches):
    start.paths  # noqa: B018  # probed before the fork
    with mp.get_context("fork").Manager() as manager:
        out = manager.dict()
        mp.start_processes(distributed, (free_port(), start, instances, out, micro_batches), nprocs=2, start_method="fork")
        (first, cursor), (second, _) = out[0], out[1]
    policy = moved(start)
    rows = load_rows(policy, instances[:8], k=2)
    whole = one_step(policy, rows, [Step((tuple(range(8)),), 16)], CONFIG, start)
    assert cursor.summary()["losses"] == pytest.approx(whole.summary()["losses"], rel=1e-5)
    assert cursor.shift.total == pytest.approx(whole.shift.total, abs=1e-5)
    both = zip(policy.model.parameters(), moved(start).model.parameters(), strict=True)
    largest = max(float((p - q).detach().abs().max()) for p, q in both)
    for name, p in policy.model.named_parameters():
        assert torch.equal(first[name], second[name])
        assert float((first[name] - p).detach().abs().max()) < 1e-4 * largest, name


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_reference_equal_to_policy_gives_a_ratio_of_exactly_zero(start, instances):
    policy = start.copy()
    rows = load_rows(policy, instances, k=2)
    steps = plan_steps(rows, 10, 60, seed=1, phase=2)
    assert len(steps) > 1 and any(len(s.micro_batches) > 1 for s in steps)
    reference = reference_log_probs(start, rows, steps, CONFIG)
    for step in steps:
        for micro_batch in step.micro_batches:
            own = row_log_probs(policy, [rows[i] for i in micro_batch])
            assert all(torch.equal(a.detach(), b) for a, b in zip(own, reference[micro_batch], strict=True))
    cursor = optimise(
        policy, new_optimizer(policy, CONFIG), rows, steps[:1], reference, Cursor(), CONFIG, phase=0, steps_before=0
    )
    assert cursor.summary()["rho_chosen"] == 0.0 and cursor.summary()["rho_rejected"] == 0.0
    assert cursor.summary()["losses"]["quality"] == pytest.approx(2 * math.log(2), abs=1e-6)


def test_a_plan_holds_every_row_once_and_keeps_its_budget(start, instances):
    rows = load_rows(start, instances, k=2)
    steps = plan_steps(rows, 10, 120, seed=1, phase=0)
    flat = [i for s in steps for m in s.micro_batches for i in m]
    assert sorted(flat) == list(range(len(rows)))
    for step in steps:
        assert step.pairs == sum(len(rows[i].pairs) for m in step.micro_batches for i in m)
        for micro_batch in step.micro_batches:
            assert len(micro_batch) == 1 or len(micro_batch) * max(rows[i].tokens for i in micro_batch) <= 120
    assert all(s.pairs == 10 for s in steps[:-1])
    assert plan_steps(rows, 10, 120, seed=1, phase=1) != steps


def test_the_shift_is_constant_within_a_step_and_counts_every_pair(start, instances):
    policy = moved(start)
    rows = load_rows(policy, instances[:6])
    steps = plan_steps(rows, 3, 10_000, seed=0, phase=0)
    reference = reference_log_probs(start, rows, steps, CONFIG)
    first = [rows[i] for i in steps[0].micro_batches[0]]
    with torch.no_grad():
        own = row_log_probs(policy, first)
    expected = RewardShift().after(
        *(a - b for a, b in zip(own, reference[steps[0].micro_batches[0]], strict=True)), CONFIG.beta
    )
    cursor = optimise(
        policy, new_optimizer(policy, CONFIG), rows, steps[:1], reference, Cursor(), CONFIG, phase=0, steps_before=0
    )
    assert cursor.shift.total == pytest.approx(expected.total, abs=1e-6) and cursor.shift.count == expected.count == 6


def test_a_loss_that_is_not_a_number_names_the_instance(start, instances):
    policy = start.copy()
    rows = load_rows(policy, instances[:4])
    steps = [Step(((0, 1, 2, 3),), 4)]
    sides = torch.zeros(4), torch.tensor([0.0, 0.0, torch.nan, 0.0])
    reference = {(0, 1, 2, 3): tuple(side.to(policy.model.device) for side in sides)}
    with pytest.raises(ValueError, match=f"phase 7, step 0 is not a number at instance '{rows[2].instance_id}'"):
        optimise(policy, new_optimizer(policy, CONFIG), rows, steps, reference, Cursor(), CONFIG, phase=7, steps_before=0)
