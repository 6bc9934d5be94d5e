"""What lies under `examples/` runs as its head says, on a tiny world."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue, Query, TrainingInstance, words
from corewrite.fusion import parse_spec
from corewrite.gate import CHECKS, Evaluation, GateConfig, PolicyOutputs, check, run_gate

sys.path.insert(0, str(Path(__file__).parent))
from installed import install

EXAMPLES = Path(__file__).parents[1] / "examples"
SPEC = """\
rawrank: {original: [{signal: relevance, eps: 0.01}]}
finerank:
  original: [{signal: relevance, eps: 0.01}, {signal: prior, eps: 0.01, exponent: 0.5}]
  rewrite: [{signal: relevance, eps: 0.05}]
"""
WORDS = ("red", "lion", "cup", "final", "piano")


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


def settings_in(name: str) -> dict:
    """The settings that the head of an example shows."""
    block = re.search(r"(?m)^    (?:ranker|gate):\n(?:^    .*\n)+", (EXAMPLES / f"{name}.py").read_text("utf-8"))
    return yaml.safe_load(block[0])


def world() -> Catalogue:
    """Every document has two of five words in its title and shows a third; document 0 has no picture."""
    rng = np.random.default_rng(0)
    said = [rng.permutation(5)[:3] for _ in range(120)]
    titles = tuple(f"{WORDS[a]} {WORDS[b]} video{i}" for i, (a, b, _) in enumerate(said))
    visual = np.zeros((120, 5), np.float32)
    visual[np.arange(120), [c for _, _, c in said]] = 1
    visual[0] = np.nan
    ids = tuple(f"d{i}" for i in range(120))
    return Catalogue(ids, titles, ("",) * 120, visual, np.full(120, 60.0), np.linspace(0.2, 1, 120))


@pytest.fixture(scope="module")
def deployment():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        ranker = {**settings_in("own_scorer")["ranker"], **settings_in("own_engine")["ranker"]}
        settings = RankerSettings.model_validate(ranker)
        assert not settings.recall.by_vectors
        yield Deployment(RankerOpener(settings, world()).build(None), parse_spec(SPEC))


def by_hand(text: str, row: int, documents: Catalogue) -> float:
    asked, said = set(words(text)), set(words(documents.titles[row]))
    seen = sum(float(documents.visual[row, WORDS.index(w)]) for w in asked - said if w in WORDS) if row else 0.0
    return 1 / (1 + np.exp(-(2.0 * len(asked & said) + 0.5 * seen - 1.2 * len(asked) - 0.5)))


def test_scorer_and_engine_rank_as_computed_by_hand(deployment):
    query, rewrite = "red piano", "lion cup final"
    documents = deployment.catalogue
    trace = deployment.cascade.trace([query], [rewrite])
    rows = trace.finerank.rows[0]
    assert (rows >= 0).sum() > 20
    for column in np.flatnonzero(rows >= 0):
        row = int(rows[column])
        own, other = by_hand(query, row, documents), by_hand(rewrite, row, documents)
        stage = deployment.spec.finerank.rewrite[0]
        ratio = np.clip(max(other, 0.05) / max(own, 0.05), stage.lo, stage.hi) ** stage.exponent
        expected = own * documents.prior[row] ** 0.5 * ratio
        assert trace.finerank.fusion.score[0, column] == pytest.approx(expected, rel=1e-6)  # pictures are float32


def test_the_engine_finds_what_shares_the_rarest_words(deployment):
    found = deployment.ranker.engine.search_text(["piano video7", "nothing of it", "piano"], 10)
    assert found.shape == (3, 10) and found.dtype == np.int64
    with_piano = [i for i, title in enumerate(deployment.catalogue.titles) if "piano" in title.split()]
    expected = [7, *(i for i in with_piano if i != 7)][:10]
    assert found[0].tolist() == expected and (found[1] == -1).all() and found[2].tolist() == with_piano[:10]


def test_the_picture_counts(deployment):
    scorer = deployment.ranker.signals["relevance"]
    documents = deployment.catalogue
    row = next(i for i in range(1, 120) if "lion" not in documents.titles[i] and documents.visual[i, 1] == 1)
    blind = next(i for i in range(1, 120) if "lion" not in documents.titles[i] and documents.visual[i, 1] == 0)
    shown, hidden = scorer.score(["lion"], np.array([[row, blind]]))[0]
    assert shown > hidden + 0.05


def test_it_rewards(deployment):
    query = Query("red piano")
    identity, other = deployment.reward(
        [TrainingInstance("x", "u", query, ("d3",), (1.0,), ("d8",), (1.0,))], [["red piano", "lion cup"]]
    )[0]
    assert identity == 0.0 and np.isfinite(other) and other != 0.0


@pytest.fixture
def with_own_check(tmp_path, monkeypatch):
    monkeypatch.setattr(check._CHECKS, "registered", dict(check._CHECKS.registered))
    monkeypatch.setattr(check._CHECKS, "_complete", False)
    points = re.search(r'\[project\.entry-points\."(.+)"\]\n\s+(\w+) = "(.+)"', (EXAMPLES / "own_check.py").read_text("utf-8"))
    install(tmp_path / "site", monkeypatch, {points[1]: {points[2]: points[3]}})


def outputs(rewrites):
    n = len(rewrites)
    return PolicyOutputs(rewrites, np.full(n, 0.1), np.full(n, 0.5))


def test_the_check_is_asked_and_its_margin_stands_in_the_settings(with_own_check):
    config = GateConfig.model_validate(settings_in("own_check")["gate"] | {"minimum_effective_users": 20, "resamples": 50})
    assert config.margins.of("repeated_words") == 0.01 and list(CHECKS)[-1] == "repeated_words"
    assert GateConfig().margins.of("repeated_words") == 0.02
    n = 400  # 338 show that what none of them had is no more than 1 %
    queries, users = [Query(f"item{i} kind") for i in range(n)], [f"u{i}" for i in range(n)]
    plain, twice = [f"item{i} kind more" for i in range(n)], [f"item{i} kind kind" if i < 240 else f"item{i}" for i in range(n)]

    def asked(candidate):
        found = run_gate(Evaluation(users, queries, {}, outputs(candidate), outputs(plain), np.full(n, 0.5)), config)
        return next(c for c in found.checks if c.name == "repeated_words"), found

    row, found = asked(twice)
    assert row.difference == pytest.approx(-0.6) and row.verdict == "fail" and "repeated_words" in found.failed
    row, found = asked(plain)
    assert row.verdict == "pass" and row.difference == 0.0
