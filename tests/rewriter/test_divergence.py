"""The divergence of two policies, against a loop over positions in NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from corewrite.rewriter import kl_along, new_small_decoder

TEXTS = ["red shoe", "blue shoe sale", "green hat"] * 5


@pytest.fixture(scope="module")
def policies():
    first = new_small_decoder(TEXTS, seed=0, vocabulary=300, width=32, layers=2, heads=2)
    second = first.copy()
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter.device))
    return first, second


def by_hand(first, second, prompt, response):
    total = 0.0
    for t in range(len(response)):
        ids = torch.tensor([[*prompt, *response[:t]]], device=first.model.device)
        with torch.inference_mode():
            p, q = (softmax(m.model(input_ids=ids).logits[0, -1].double().cpu().numpy()) for m in (first, second))
        total += rel_entr(p, q).sum()
    return total / len(response)


def test_it_is_the_mean_over_tokens_of_the_relative_entropy(policies):
    prompts = [[3, 4, 5, 6, 7], [8, 9], [3, 3, 3]]
    responses = [[10, 11, 12], [13], [14, 15]]
    found = kl_along(*policies, prompts, responses)
    wanted = [by_hand(*policies, x, y) for x, y in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert (found > 0.01).all()


def test_a_policy_does_not_diverge_from_itself(policies):
    assert kl_along(policies[0], policies[0], [[3, 4]], [[5, 6]]) == pytest.approx(0.0, abs=1e-6)


def test_other_vocabularies_are_refused(policies):
    other = new_small_decoder(["x y z"] * 9, seed=0, vocabulary=280, width=32, layers=1, heads=2)
    with pytest.raises(ValueError, match="different vocabularies"):
        kl_along(policies[0], other, [[3]], [[4]])
