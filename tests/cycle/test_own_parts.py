"""A judge and a sampler that are not ours, by settings."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from corewrite.cycle import PipelineConfig, write_catalogue, write_labels
from corewrite.cycle.config_sections import load_train_config
from corewrite.cycle.judges import build_judge, fitted_judge
from corewrite.cycle.training_run import open_sampler
from corewrite.domain import Catalogue, Query
from corewrite.relevance import Labels, TreeJudge
from corewrite.rewriter import new_small_decoder

sys.path.insert(0, str(Path(__file__).parents[1]))
from installed import install

JUDGE = """\
import numpy as np

from corewrite.relevance import Judge, JudgeReport


class ByRow(Judge):
    def __init__(self, documents, best):
        self.best, self.labels = best, 0

    def fit(self, labels, *, seed):
        self.labels = len(labels.rows)
        return JudgeReport(0.0, 0.0, 0)

    def grade(self, queries, rows):
        return np.where(rows < 0, 0.0, np.where(rows == self.best, 3.0, np.where(rows == self.best + 1, 1.0, 0.0)))


def nothing(documents):
    return documents
"""
SAMPLER = """\
from contextlib import contextmanager

OPEN = []


@contextmanager
def here(policy, speed):
    OPEN.append(speed)
    try:
        yield (policy, speed)
    finally:
        OPEN.remove(speed)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    points = {"corewrite.judges": {"by-row": "own_judge:ByRow"}, "corewrite.samplers": {"here": "own_sampler:here"}}
    install(tmp_path / "site", monkeypatch, points, own_judge=JUDGE, own_sampler=SAMPLER)


@pytest.fixture
def catalogue():
    n = 30
    return Catalogue(
        tuple(f"d{i}" for i in range(n)), tuple(f"red lion {i}" for i in range(n)), ("",) * n, np.ones((n, 2), np.float32),
        np.full(n, 60.0), np.ones(n),
    )  # fmt: skip


def config(**settings):
    return PipelineConfig.model_validate(settings)


OWN = ({"kind": "by-row", "best": 4}, {"kind": "python", "factory": "own_judge:ByRow", "options": {"best": 4}})


@pytest.mark.parametrize("settings", OWN, ids=["entry point", "python"])
def test_a_judge_of_ones_own_is_fitted_and_grades(installed, catalogue, tmp_path, settings):
    write_catalogue(catalogue, tmp_path / "d.parquet")
    write_labels(Labels([Query("a"), Query("b")], np.array([1, 2]), np.array([1.0, 2.0])), catalogue, tmp_path / "l.parquet")
    judge = fitted_judge(tmp_path / "l.parquet", tmp_path / "d.parquet", 0, judge=config(judge=settings).judge)
    assert judge.labels == 2
    first, second = judge.ndcg10([Query("a")], [np.array([[4, 5, -1]]), np.array([[7, 5, 4]])])
    ideal = sum(3 / np.log2(rank + 2) for rank in range(10))
    assert first[0] == pytest.approx((3 + 1 / np.log2(3)) / ideal) and second[0] == pytest.approx(
        (1 / np.log2(3) + 3 / 2) / ideal
    )
    other = {**settings, "best": 9} if "best" in settings else {**settings, "options": {"best": 9}}
    again = fitted_judge(tmp_path / "l.parquet", tmp_path / "d.parquet", 0, judge=config(judge=other).judge)
    assert again is not judge and again.best == 9


def test_the_bundled_judge_is_the_default_and_what_is_no_judge_is_refused(installed, catalogue):
    assert isinstance(build_judge(config().judge, catalogue), TreeJudge)
    assert config() == config(judge={"kind": "trees"}) and config().model_dump(exclude_defaults=True) == {}
    with pytest.raises(ValueError, match="a Catalogue has no fit: derive it from"):
        build_judge(config(judge={"kind": "python", "factory": "own_judge:nothing"}).judge, catalogue)
    with pytest.raises(ValidationError, match="kind 'forest' is unknown: there are trees, python, by-row"):
        config(judge={"kind": "forest"})


def test_a_sampler_of_ones_own_samples_and_is_closed(installed):
    policy = new_small_decoder(["a cat", "a dog"] * 5, seed=0, vocabulary=300, width=32, layers=1, heads=2)
    import own_sampler

    with open_sampler(config(server={"kind": "here", "speed": 3}), policy) as engine:
        assert engine == (policy, 3) and own_sampler.OPEN == [3]
    assert own_sampler.OPEN == []
    with pytest.raises(ValidationError, match="kind 'there' is unknown: there are server, here"):
        config(server={"kind": "there"})
    with pytest.raises(ValidationError, match="url"):
        config(server={"model_folder": "x"})


def test_they_stand_in_corewrite_yaml(installed, tmp_path):
    path = tmp_path / "corewrite.yaml"
    path.write_text("run: r\njudge: {kind: by-row, best: 4}\nsampling: {kind: here, speed: 3}\n", "utf-8")
    found = load_train_config(path).pipeline
    assert found == config(judge={"kind": "by-row", "best": 4}, server={"kind": "here", "speed": 3})
    assert found.judge.options == {"best": 4} and found.server.options == {"speed": 3}
