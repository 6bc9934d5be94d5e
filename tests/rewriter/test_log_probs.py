"""Log-probabilities of responses against the full logits."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corewrite.domain import Query
from corewrite.rewriter import Rewriter, length_buckets, load_rewriter, response_log_probs

RESPONSES = ["red lion trailer", "", "cats", "how to cook rice and eggs", "ü🦁"]


def by_hand(model, prompt: list[int], response: list[int]) -> torch.Tensor:
    """One sequence, alone and unpadded, all logits."""
    logits = model(input_ids=torch.tensor([[*prompt, *response]], device=model.device)).logits[0].float()
    log_probs = logits.log_softmax(-1)
    return torch.stack([log_probs[len(prompt) + t - 1, token] for t, token in enumerate(response)])


def check(rewriter: Rewriter, queries: list[Query]) -> None:
    prompts = [rewriter.template.encode(q) for q in queries[: len(RESPONSES)]]
    responses = [rewriter.template.encode_target(r) for r in RESPONSES]
    scored = response_log_probs(rewriter.model, prompts, responses)
    assert scored.dtype == torch.float32
    assert scored.shape == (len(RESPONSES), max(map(len, responses)))
    for row, prompt, response in zip(scored, prompts, responses, strict=True):
        assert row[: len(response)] == pytest.approx(by_hand(rewriter.model, prompt, response).detach(), abs=1e-5)
        assert not row[len(response) :].any()


@pytest.mark.parametrize("state", ["random", "trained"])
def test_equals_full_logits(state: str, rewriter: Rewriter, trained: Rewriter, queries: list[Query]) -> None:
    with torch.no_grad():
        check(rewriter if state == "random" else trained, queries[::-1])


def test_equals_full_logits_of_any_model(plain_folder: Path, queries: list[Query]) -> None:
    with torch.no_grad():
        check(load_rewriter(plain_folder), queries[::-1])


def test_gradients_are_those_of_the_full_logits(rewriter: Rewriter) -> None:
    model, template = rewriter.model, rewriter.template
    prompts = [template.encode(Query(q)) for q in ("lion", "how to cook")]
    responses = [template.encode_target(r) for r in ("red lion", "rice")]
    response_log_probs(model, prompts, responses).sum().backward()
    packed = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    sum(by_hand(model, x, y).sum() for x, y in zip(prompts, responses, strict=True)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, atol=1e-4, rtol=1e-4)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_length_buckets(lengths: list[int], budget: int) -> None:
    groups = length_buckets(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    ordered = [lengths[i] for group in groups for i in group]
    assert ordered == sorted(lengths)
