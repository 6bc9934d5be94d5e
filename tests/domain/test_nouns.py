"""Catalogue, instance, query and provenance: what they refuse and what their hashes see."""

from dataclasses import replace

import numpy as np
import pytest

from corewrite.domain import Catalogue, Context, Provenance, Query, TrainingInstance


def catalogue(**changes) -> Catalogue:
    columns = {
        "ids": ("a", "b"),
        "titles": ("one", "two"),
        "texts": ("", "more"),
        "visual": np.zeros((2, 3), np.float32),
        "seconds": np.array([10.0, 20.0]),
        "prior": np.array([0.5, 1.0]),
    }
    return Catalogue(**(columns | changes))


def test_catalogue_finds_rows() -> None:
    c = catalogue()
    assert len(c) == 2
    assert c.rows(["b", "a", "b"]).tolist() == [1, 0, 1]
    with pytest.raises(KeyError, match="z"):
        c.rows(["a", "z"])


@pytest.mark.parametrize("column", ["titles", "texts", "visual", "seconds", "prior"])
def test_catalogue_refuses_columns_of_other_length(column: str) -> None:
    with pytest.raises(ValueError, match=rf"column '{column}' has 1 rows, ids has 2"):
        catalogue(**{column: getattr(catalogue(), column)[:1]})


def test_catalogue_refuses_repeated_ids() -> None:
    with pytest.raises(ValueError, match="not unique: 'a' is at rows 0 and 2"):
        catalogue(
            ids=("a", "b", "a"), titles=("",) * 3, texts=("",) * 3, visual=np.zeros((3, 1), np.float32),
            seconds=np.ones(3), prior=np.ones(3),
        )  # fmt: skip


def test_catalogue_hash_sees_every_column() -> None:
    base = catalogue()
    others = [
        catalogue(ids=("a", "c")),
        catalogue(titles=("one", "Two")),
        catalogue(texts=("more", "")),
        catalogue(visual=np.ones((2, 3), np.float32)),
        catalogue(seconds=np.array([20.0, 10.0])),
        catalogue(prior=np.array([0.5, 0.9])),
        catalogue(titles=("one\x1f", "two")),
    ]
    assert base.content_hash == catalogue().content_hash
    assert len({c.content_hash for c in [base, *others]}) == len(others) + 1


def test_catalogue_hash_keeps_columns_apart() -> None:
    left = catalogue(titles=("x\x1fy", "two"), texts=("", ""))
    right = catalogue(titles=("x", "two"), texts=("y\x1f", ""))
    assert left.content_hash != right.content_hash


INSTANCE = TrainingInstance("q1", "u", Query("lion"), ("a",), (1.0,), ("b", "c"), (1.0, 2.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gains": (1.0, 1.0)}, "differ in number"),
        ({"weights": (1.0,)}, "differ in number"),
        ({"positives": (), "gains": ()}, "must both hold a document"),
        ({"negatives": (), "weights": ()}, "must both hold a document"),
        ({"gains": (0.0,)}, "above 0"),
        ({"weights": (1.0, -1.0)}, "above 0"),
        ({"gains": (float("nan"),)}, "finite"),
        ({"weights": (1.0, float("inf"))}, "finite"),
    ],
)
def test_instance_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"instance 'q1'.*{message}"):
        replace(INSTANCE, **change)


def test_query_key_sees_text_and_context() -> None:
    queries = [
        Query("lion"),
        Query("Lion"),
        Query("lion", Context(("red",))),
        Query("lion", Context((), ("red",))),
        Query("lion", Context(("red", "lion"))),
        Query("lion", Context(("red lion",))),
        Query("lion", Context(locale="en")),
    ]
    assert len({q.key for q in queries}) == len(queries)
    assert Query("lion", Context(("red",))).key == Query("lion", Context(("red",))).key


def test_provenance_as_dict() -> None:
    assert Provenance("1", "a/b", "s", "m", 3).as_dict() == {
        "code_version": "1",
        "data_window": "a/b",
        "spec_hash": "s",
        "model_hash": "m",
        "seed": 3,
    }
