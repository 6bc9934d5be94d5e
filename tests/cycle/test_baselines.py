from corewrite.cycle import SpellingDictionary, baseline_rewrites
from corewrite.domain import Context, Query
from corewrite.evaluation.searches import build_slices, query_frequency

TEXTS = ["interview paris"] * 9 + ["interview london"] * 9 + ["concert"] * 9 + ["interviev"] + ["cats"] * 5 + ["cars"] * 40


def test_spelling_corrects_rare_words_by_one_edit_and_leaves_known_ones():
    spelling = SpellingDictionary(TEXTS)
    assert spelling.correct("interveiw paris") == "interview paris", "a swap is one edit"
    assert spelling.correct("interviev") == "interview", "seen once, but a frequent word is next door"
    assert spelling.correct("interview london") is None
    assert spelling.correct("cats") is None, "a known word is not turned into a commoner one"
    assert spelling.correct("zzzzzzzz") is None and spelling.correct("") is None
    assert spelling.correct("conncertt") == "concert", "two edits from eight letters on"


def test_baselines():
    queries = [Query("paris", Context(queries=("london", "interveiw"))), Query("concert")]
    found = baseline_rewrites(queries, SpellingDictionary(TEXTS))
    assert found["original"] == [None, None]
    assert found["last_query"] == ["interveiw paris", None]
    assert found["spelling"] == [None, None]
    assert found["last_query_and_spelling"] == ["interview paris", None]


def test_slices_part_the_traffic():
    queries = [Query("A"), Query("b", Context(queries=("x",))), Query("c", Context(titles=("t",)))]
    slices = build_slices(queries, query_frequency(["a"] * 30 + ["b"] * 5))
    for parts in (("head", "torso", "tail"), ("after a query", "after a video only", "no context")):
        assert sum(slices[name].astype(int) for name in parts).tolist() == [1, 1, 1]
    assert slices["head"].tolist() == [True, False, False] and slices["torso"].tolist() == [False, True, False]
