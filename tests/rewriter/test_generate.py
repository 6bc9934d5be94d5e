"""Greedy decoding and sampling against a loop without cache, padding or batch."""

import numpy as np
import pytest
import torch
from scipy import stats

from corewrite.domain import Query, keyed_uniform
from corewrite.rewriter import (
    Completion,
    Rewriter,
    as_rewrite,
    clean,
    distinct_prompts,
    greedy,
    load_rewriter,
    response_log_probs,
    sample,
)
from corewrite.rewriter.decode import SharedPrefixDecoder
from corewrite.rewriter.generate import _continue, _most_probable


def decoded_by_hand(rewriter: Rewriter, query: Query, limit: int, prompt=None) -> tuple[list[int], float]:
    """The whole sequence through the model at every step."""
    ids, total, out = prompt or rewriter.template.encode(query), 0.0, []
    with torch.no_grad():
        while len(out) < limit and (not out or out[-1] != rewriter.tokenizer.eos_token_id):
            so_far = torch.tensor([[*ids, *out]], device=rewriter.model.device)
            log_probs = rewriter.model(input_ids=so_far).logits[0, -1].float().log_softmax(-1)
            out.append(int(log_probs.argmax()))
            total += float(log_probs[out[-1]])
    return out, total


@pytest.mark.parametrize("state", ["random", "trained"])
def test_greedy_is_the_argmax_at_every_step(state: str, rewriter: Rewriter, trained: Rewriter, queries: list[Query]) -> None:
    policy = rewriter if state == "random" else trained
    found = greedy(policy, queries, max_new_tokens=9)
    for query, got in zip(queries, found, strict=True):
        ids, total = decoded_by_hand(policy, query, 9)
        assert list(got.token_ids) == ids
        assert got.log_prob == pytest.approx(total, abs=1e-4)
        assert got.ended == (ids[-1] == policy.tokenizer.eos_token_id)
        cleaned = clean(policy.template.decode(ids))
        assert got.text == cleaned.text
        assert got.malformed == (cleaned.malformed or policy.template.holds_reserved(ids[: len(ids) - got.ended]))
    if state == "trained":
        assert [g.text for g in found[:6]] == [
            "red lion trailer", "how to cook rice", "rice", "boil eggs", "funny cats", "lion dance",
        ]  # fmt: skip
        assert all(g.ended for g in found[:6])


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_guesses_save_steps_and_change_nothing(limit: int, trained: Rewriter, queries: list[Query], monkeypatch) -> None:
    prompts, _ = distinct_prompts(trained, queries)
    truth = [decoded_by_hand(trained, Query(""), limit, prompt)[0] for prompt in prompts]
    steps = []
    advance = SharedPrefixDecoder.advance
    monkeypatch.setattr(SharedPrefixDecoder, "advance", lambda self, *a: steps.append(1) or advance(self, *a))

    def decoded(drafts):
        with torch.inference_mode():
            found = _continue(trained, prompts, np.arange(len(prompts)), 1, limit, _most_probable, drafts)
        return [c for (c,) in found]

    plain = decoded(None)
    assert [list(c.token_ids) for c in plain] == truth
    rng = np.random.default_rng(0)
    for _ in range(12):
        right = [int(rng.integers(0, limit)) for _ in prompts]
        wrong = [rng.integers(50, 90, rng.integers(0, 4)).tolist() for _ in prompts]  # words, no marks
        drafts = [[*(t for t in y[:k] if t != trained.tokenizer.eos_token_id), *w][: limit - 1]
                  for y, k, w in zip(truth, right, wrong, strict=True)]  # fmt: skip
        found = decoded(drafts)
        assert [c.token_ids for c in found] == [c.token_ids for c in plain]
        np.testing.assert_allclose([sum(c.log_probs) for c in found], [sum(c.log_probs) for c in plain], atol=1e-4)
    # A guess that is all right leaves one pass: its last logits give the end.
    steps.clear()
    found = decoded([[t for t in y if t != trained.tokenizer.eos_token_id][: limit - 1] for y in truth])
    assert [list(c.token_ids) for c in found] == truth and not steps


def test_greedy_of_other_models(plain_folder, queries: list[Query]) -> None:
    policy = load_rewriter(plain_folder)
    for query, got in zip(queries, greedy(policy, queries, max_new_tokens=5), strict=True):
        assert list(got.token_ids) == decoded_by_hand(policy, query, 5)[0]


def test_a_reserved_token_inside_makes_a_rewrite_malformed(rewriter: Rewriter) -> None:
    lion, eos = rewriter.template.encode_text("lion"), rewriter.tokenizer.eos_token_id
    mark = rewriter.template.encode(Query("lion"))[0]
    for ids, malformed in (((*lion, eos), False), (tuple(lion), False), ((*lion, mark, eos), True), ((*lion, eos, eos), True)):
        found = as_rewrite(rewriter, Completion(ids, (0.0,) * len(ids)))
        assert (found.text, found.malformed) == ("lion", malformed), ids


def test_equal_queries_are_decoded_once(rewriter: Rewriter, queries: list[Query]) -> None:
    seen = []
    found = greedy(rewriter, queries, max_new_tokens=3, progress=lambda done, total: seen.append((done, total)))
    assert queries[0] == queries[-1] and found[0] == found[-1]
    assert seen[-1] == (len(queries) - 1, len(queries) - 1)
    assert greedy(rewriter, []) == []


def draw(policy: Rewriter, queries: list[Query], n: int = 5, **change):
    options = {"keys": range(100, 100 + len(queries)), "seed": 3, "phase": 2, "max_new_tokens": 8} | change
    found = sample(policy, [policy.template.encode(q) for q in queries], n, **options)
    return [[as_rewrite(policy, c) for c in row] for row in found]


def test_the_samplers_log_prob_is_the_trainers(trained: Rewriter, queries: list[Query]) -> None:
    rows = draw(trained, queries)
    prompts = [trained.template.encode(q) for q, row in zip(queries, rows, strict=True) for _ in row]
    flat = [r for row in rows for r in row]
    with torch.no_grad():
        scored = response_log_probs(trained.model, prompts, [r.token_ids for r in flat]).sum(1)
    assert [r.log_prob for r in flat] == pytest.approx(scored.tolist(), abs=1e-4)
    # Both ways to end are among them, and an early end is the last token.
    assert {r.ended for r in flat} == {True, False}
    eos = trained.tokenizer.eos_token_id
    for r in flat:
        assert (eos in r.token_ids[:-1], r.token_ids[-1] == eos) == (False, r.ended)
        assert r.ended or len(r.token_ids) == 8


def test_draws_do_not_depend_on_the_batch(trained: Rewriter, queries: list[Query]) -> None:
    together = draw(trained, queries)
    for i, query in enumerate(queries):
        (alone,) = draw(trained, [query], keys=[100 + i])
        assert [r.token_ids for r in alone] == [r.token_ids for r in together[i]]
        assert [r.log_prob for r in alone] == pytest.approx([r.log_prob for r in together[i]], abs=1e-4)
    backwards = draw(trained, queries[::-1], keys=[107 - i for i in range(len(queries))])
    assert [[r.token_ids for r in row] for row in backwards[::-1]] == [[r.token_ids for r in row] for row in together]
    # More samples leave the first ones as they are.
    more = draw(trained, queries, n=9)
    assert [[r.token_ids for r in row[:5]] for row in more] == [[r.token_ids for r in row] for row in together]


@pytest.mark.parametrize("change", [{"seed": 4}, {"phase": 3}, {"keys": range(200, 208)}])
def test_draws_depend_on_every_key(rewriter: Rewriter, queries: list[Query], change: dict) -> None:
    base, other = draw(rewriter, queries), draw(rewriter, queries, **change)
    assert base == draw(rewriter, queries)
    same = np.mean([a.token_ids == b.token_ids for x, y in zip(base, other, strict=True) for a, b in zip(x, y, strict=True)])
    assert same < 0.1
    # The samples of one query differ among themselves.
    assert all(len({r.token_ids for r in row}) > 1 for row in base)


def test_every_position_has_a_draw_of_its_own(rewriter: Rewriter) -> None:
    # With all tokens alike, the token is the draw itself, scaled to the vocabulary.
    torch.nn.init.zeros_(rewriter.model.lm_head.weight)
    size = rewriter.model.lm_head.weight.shape[0]
    (row,) = draw(rewriter, [Query("lion")], n=4, keys=[9], seed=3, phase=2)
    for number, got in enumerate(row):
        expected = [int(size * float(keyed_uniform(3, 2, 9, number, t))) for t in range(len(got.token_ids))]
        assert list(got.token_ids) == expected
        assert got.log_prob == pytest.approx(-len(expected) * np.log(size), abs=1e-4)


def test_samples_follow_the_models_distribution(trained: Rewriter) -> None:
    query, n = Query("a cat"), 2000
    (row,) = draw(trained, [query], n=n, max_new_tokens=1)
    with torch.no_grad():
        ids = torch.tensor([trained.template.encode(query)], device=trained.model.device)
        logits = trained.model(input_ids=ids).logits[0, -1]
    probability = logits.double().softmax(-1).cpu().numpy()
    counts = np.bincount([r.token_ids[0] for r in row], minlength=len(probability))
    common = n * probability >= 5
    assert common.sum() >= 2
    observed = [*counts[common], counts[~common].sum()]
    expected = [*(n * probability[common]), n * probability[~common].sum()]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
