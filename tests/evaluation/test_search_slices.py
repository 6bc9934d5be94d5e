from corewrite.domain import Context, Query
from corewrite.evaluation.searches import build_slices, query_frequency


def test_slices_part_the_traffic():
    queries = [Query("A"), Query("b", Context(queries=("x",))), Query("c", Context(titles=("t",)))]
    slices = build_slices(queries, query_frequency(["a"] * 30 + ["b"] * 5))
    for parts in (("head", "torso", "tail"), ("after a query", "after a video only", "no context")):
        assert sum(slices[name].astype(int) for name in parts).tolist() == [1, 1, 1]
    assert slices["head"].tolist() == [True, False, False] and slices["torso"].tolist() == [False, True, False]
