"""Pairs for raters: their probabilities, and that direct grades correct a wrong judge without bias."""

import numpy as np
import pytest

from corewrite.domain.ndcg import DISCOUNT
from corewrite.relevance.pair_sample import Contrast, PairSample, choose_pairs

SEARCHES, DOCUMENTS = 60, 40
SEEDS = 3_000


@pytest.fixture(scope="module")
def lists():
    """Candidate, champion and no rewriter: half of the searches are alike, some lists are short."""
    rng = np.random.default_rng(0)
    first = np.stack([rng.permutation(DOCUMENTS)[:10] for _ in range(SEARCHES)])
    second, third = first.copy(), first.copy()
    for i in range(0, SEARCHES, 2):
        second[i] = np.concatenate([first[i, 3:8], rng.permutation(np.arange(DOCUMENTS, DOCUMENTS + 20))[:5]])
        third[i] = rng.permutation(DOCUMENTS)[:10]
    second[4, 7:], third[6, 2:] = -1, -1
    return first, second, third


def weights(rows):
    """Discount of every document in every list, by a loop."""
    found = np.zeros((SEARCHES, DOCUMENTS + 20))
    for i, row in enumerate(rows.tolist()):
        for rank, document in enumerate(row):
            if document >= 0:
                found[i, document] = 1 / np.log2(rank + 2)
    return found


def drawn(contrasts, n):
    return [choose_pairs(contrasts, n, seed=seed) for seed in range(SEEDS)]


def test_probabilities_are_those_of_the_choice_and_follow_the_difference(lists):
    first, second, third = lists
    contrasts = [Contrast(first, second, 0.75), Contrast(first, third, 0.25)]
    moved = [np.abs(weights(a) - weights(b)) for a, b in ((first, second), (first, third))]
    wanted = sum(share * m / m.sum() for share, m in zip((0.75, 0.25), moved, strict=True)) * 50
    assert wanted.max() < 1
    counts = np.zeros(wanted.shape)
    for sample in drawn(contrasts, 50):
        assert len(sample) == 50 and len(set(zip(sample.searches, sample.rows, strict=True))) == 50
        assert sample.probability == pytest.approx(wanted[sample.searches, sample.rows])
        counts[sample.searches, sample.rows] += 1
    error = np.sqrt(wanted * (1 - wanted) / SEEDS)
    assert (np.abs(counts / SEEDS - wanted) <= 5 * error).all()


def test_what_is_surely_chosen_leaves_the_rest_its_share(lists):
    first, second, _ = lists
    moved = np.abs(weights(first) - weights(second))
    differ = int((moved > 0).sum())
    every = choose_pairs([Contrast(first, second, 1.0)], differ + 10, seed=1)
    assert len(every) == differ and (every.probability == 1).all()
    most = choose_pairs([Contrast(first, second, 1.0)], differ - 30, seed=1)
    certain = most.probability == 1
    assert len(most) == differ - 30 and certain.any() and not certain.all()
    ratio = most.probability[~certain] / moved[most.searches, most.rows][~certain]
    assert ratio == pytest.approx(np.full(len(ratio), ratio[0]))


def test_equal_systems_give_nothing_to_grade(lists):
    assert len(choose_pairs([Contrast(lists[0], lists[0], 1.0)], 10, seed=0)) == 0


def truth_and_judge():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 4, (SEARCHES, DOCUMENTS + 20)).astype(float)
    # Wrong on purpose: it knows nothing of the documents that only the second system finds.
    judged = np.where(np.arange(DOCUMENTS + 20) < DOCUMENTS, 0.5 * truth + 0.3, 2.5)
    return truth, judged


def gain(lists, grades):
    """Mean nDCG@10 of first over second, by a loop."""
    a, b = (sum(float(w @ g) for w, g in zip(weights(rows), grades, strict=True)) for rows in lists[:2])
    return (a - b) / (3 * DISCOUNT.sum()) / SEARCHES


def corrected(sample, lists, given, judged):
    a, b = (sample.corrections(given, judged[sample.searches, sample.rows], rows).mean() for rows in lists[:2])
    return gain(lists, judged) + a - b


def test_with_every_pair_graded_the_judge_does_not_matter(lists):
    truth, judged = truth_and_judge()
    sample = choose_pairs([Contrast(lists[0], lists[1], 1.0)], 10_000, seed=0)
    assert corrected(sample, lists, truth[sample.searches, sample.rows], judged) == pytest.approx(gain(lists, truth))
    assert gain(lists, judged) != pytest.approx(gain(lists, truth), abs=0.02)


def test_a_sample_has_no_bias_however_wrong_the_judge_is(lists):
    truth, judged = truth_and_judge()
    contrasts = [Contrast(lists[0], lists[1], 0.7), Contrast(lists[0], lists[2], 0.3)]
    found = np.array([corrected(s, lists, truth[s.searches, s.rows], judged) for s in drawn(contrasts, 60)])
    assert abs(found.mean() - gain(lists, truth)) < 4 * found.std() / np.sqrt(SEEDS)
    assert abs(gain(lists, judged) - gain(lists, truth)) > 20 * found.std() / np.sqrt(SEEDS)


def test_grades_that_are_missing_at_random_do_not_bias_it(lists):
    truth, judged = truth_and_judge()
    rng, found = np.random.default_rng(3), []
    for s in drawn([Contrast(lists[0], lists[1], 1.0)], 60):
        given = truth[s.searches, s.rows]
        found.append(corrected(s, lists, np.where(rng.random(60) < 0.3, np.nan, given), judged))
    # A ratio estimate: its bias is of the order of 1 / pairs.
    assert abs(np.mean(found) - gain(lists, truth)) < 4 * np.std(found) / np.sqrt(SEEDS) + 0.03 * np.std(found)
    with pytest.raises(ValueError, match="no pair has a grade"):
        s.corrections(np.full(60, np.nan), np.zeros(60), lists[0])


def test_only_what_a_list_shows_corrects_it(lists):
    sample = PairSample(np.array([0, 1]), np.array([int(lists[0][0, 2]), 10**6]), np.array([0.5, 0.25]))
    found = sample.corrections(np.array([3.0, 3.0]), np.array([1.0, 1.0]), lists[0])
    assert found[0] == pytest.approx(2 / 0.5 * 0.5 / (3 * DISCOUNT.sum())) and not found[1:].any()
