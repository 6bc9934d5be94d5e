"""Warm start: what is learnt, from what, and the same way twice."""

import math
from pathlib import Path

import pytest
import torch

from corewrite.domain import Query
from corewrite.rewriter import (
    Example,
    Rewriter,
    fine_tune,
    greedy,
    load_rewriter,
    mean_token_loss,
    response_log_probs,
)

OPTIONS = {"epochs": 10, "seed": 5, "batch": 4, "learning_rate": 5e-3}


def test_the_loss_falls(rewriter: Rewriter, examples: list[Example]) -> None:
    before = mean_token_loss(rewriter, examples)
    seen = []
    report = fine_tune(rewriter, examples, **OPTIONS, progress=lambda done, total: seen.append((done, total)))
    after = mean_token_loss(rewriter, examples)
    assert before == pytest.approx(math.log(len(rewriter.tokenizer)), rel=0.1)
    assert after < 0.5 * before
    assert report.first_loss == pytest.approx(before, rel=0.15)
    assert report.last_loss < report.first_loss
    assert (report.steps, report.examples) == (30, 12)
    assert seen == [(i, 30) for i in range(1, 31)]
    assert not rewriter.model.training


def test_mean_token_loss_is_the_mean_over_tokens(rewriter: Rewriter, examples: list[Example]) -> None:
    total = tokens = 0.0
    for example in examples:
        target = rewriter.template.encode_target(example.target)
        with torch.no_grad():
            total -= float(response_log_probs(rewriter.model, [rewriter.template.encode(example.query)], [target]).sum())
        tokens += len(target)
    for budget in (1, 16_384):
        assert mean_token_loss(rewriter, examples, budget) == pytest.approx(total / tokens, rel=1e-5)


def test_a_seed_makes_one_policy(rewriter: Rewriter, examples: list[Example]) -> None:
    twins = [rewriter.copy() for _ in range(3)]
    reports = [fine_tune(t, examples, **OPTIONS | {"seed": s}) for t, s in zip(twins, (5, 5, 6), strict=True)]
    assert twins[0].policy_hash == twins[1].policy_hash != twins[2].policy_hash
    assert reports[0] == reports[1]
    assert rewriter.policy_hash not in {t.policy_hash for t in twins}


def test_a_seed_makes_one_policy_of_a_model_with_dropout(plain_folder: Path, examples: list[Example]) -> None:
    hashes = set()
    for drawn_before in (1, 7):
        policy = load_rewriter(plain_folder)
        torch.rand(drawn_before)
        fine_tune(policy, examples, **OPTIONS | {"epochs": 1})
        hashes.add(policy.policy_hash)
    assert len(hashes) == 1


def test_refusals(rewriter: Rewriter, examples: list[Example]) -> None:
    with pytest.raises(ValueError, match="needs examples"):
        fine_tune(rewriter, [], **OPTIONS)
    with torch.no_grad():
        rewriter.model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="loss of fine-tuning step 0 is not a number"):
        fine_tune(rewriter, examples, **OPTIONS)


def test_a_query_that_no_prompt_holds_is_left_out(rewriter: Rewriter, examples: list[Example]) -> None:
    pasted = Example(Query("x1 " * 60), "rice")
    twin = rewriter.copy()
    assert fine_tune(twin, [*examples, pasted], **OPTIONS).examples == len(examples)
    fine_tune(rewriter, examples, **OPTIONS)
    assert twin.policy_hash == rewriter.policy_hash
    with pytest.raises(ValueError, match="needs examples"):
        fine_tune(rewriter, [pasted], **OPTIONS)


def test_the_end_is_learnt_where_it_is_the_padding_too(plain_folder, examples) -> None:
    """A model without a padding token pads with its end of sequence: masking by token would hide the end from the loss."""
    rewriter = load_rewriter(plain_folder)
    assert rewriter.tokenizer.pad_token_id == rewriter.tokenizer.eos_token_id
    fine_tune(rewriter, examples, epochs=60, seed=0, batch=6, learning_rate=3e-3)
    found = greedy(rewriter, [e.query for e in examples], max_new_tokens=20)
    assert all(r.ended for r in found)
    assert sum(r.text == e.target for r, e in zip(found, examples, strict=True)) >= 8
