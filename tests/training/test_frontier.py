"""The frontier benchmark in miniature: its clock, its intervals, and a run of every method."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from corewrite.domain import Query, TrainingInstance
from corewrite.rewriter import load_rewriter, new_small_decoder

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("trl")
import frontier

WORDS = ["red lion trailer", "how to cook rice", "boil eggs", "funny cats", "lion dance", "zebra in the zoo"]
QUERIES = [Query(f"{a} {b}") for a in WORDS for b in WORDS]


def test_the_clock_stops_while_the_policy_is_measured() -> None:
    now, seen = [0.0], []

    def measure(place: int, spent: float) -> None:
        seen.append((place, spent))
        now[0] += 1_000.0

    marks = frontier.Marks([2.0, 3.0, 10.0], measure, now=lambda: now[0])
    marks.start()
    for expected in (False, False, False, False):
        now[0] += 1.5
        assert marks.tick() is expected
    assert seen == [(0, 3.0), (1, 3.0)]  # both times lie behind the second step
    now[0] += 1.0
    assert marks.tick(over=True)
    assert seen[2:] == [(2, 7.0)] and marks.spent == 7.0


def test_differences_are_those_of_the_searches_by_user_and_pooled_over_seeds(tmp_path: Path) -> None:
    rng, rows, means, errors = np.random.default_rng(3), [], [], []
    for seed, n in ((0, 40), (1, 25)):
        ours, theirs = rng.random((2, n))
        np.save(tmp_path / f"ours-{seed}-2.npy", ours)
        np.save(tmp_path / f"trl_grpo-{seed}-2.npy", theirs)
        (tmp_path / f"users-{seed}.json").write_text(str([f"u{i}" for i in range(n)]).replace("'", '"'))
        rows += [{"method": m, "seed": seed, "minutes": 2} for m in ("ours", "trl_grpo")]
        means.append((ours - theirs).mean())
        errors.append(stats.sem(ours - theirs) * stats.t.ppf(0.975, n - 1))
    (found,) = frontier.differences(rows, tmp_path)
    assert (found["against"], found["minutes"], found["seeds"]) == ("trl_grpo", 2, 2)
    assert found["mean"] == pytest.approx(np.mean(means)) and found["least_seed"] == pytest.approx(min(means))
    assert found["high"] - found["mean"] == pytest.approx(np.hypot(*errors) / 2)


def test_searches_of_one_user_count_as_one_draw() -> None:
    difference = np.random.default_rng(4).normal(size=30)
    users = [f"u{i}" for i in range(30)]
    mean, low, high = frontier.paired(users, difference)
    twice = frontier.paired([*users, *users], np.concatenate([difference, difference]))
    assert twice == pytest.approx([mean, low, high])


@dataclass(frozen=True)
class Spread:
    """Pays for distinct words."""

    def __call__(self, instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        return [
            np.array([0.0 if t == x.query.text else len(set(t.split())) - 3.0 for t in row])
            for x, row in zip(instances, texts, strict=True)
        ]


@pytest.fixture
def tiny() -> SimpleNamespace:
    warm = new_small_decoder([q.text for q in QUERIES] * 5, seed=1, vocabulary=300, width=32, layers=1, heads=2)
    instances = [TrainingInstance(f"i{i}", "u", q, ("a",), (1.0,), ("b",), (1.0,), float(i)) for i, q in enumerate(QUERIES)]

    def measure_rewrites(gate: list[str | None], fresh: list[str | None]) -> tuple[dict[str, float], np.ndarray]:
        found = np.array([float(len(r or "")) for r in fresh])
        return dict.fromkeys(("ndcg10_all", "reward", "judge", "words"), float(found.mean()) + len(gate)), found

    return SimpleNamespace(
        warm=warm, instances=instances, for_gate=instances[:3], measure_rewrites=measure_rewrites,
        deployment=SimpleNamespace(reward=Spread()),
        config=SimpleNamespace(pipeline=SimpleNamespace(max_new_tokens=6)),
        held_out=SimpleNamespace(user_ids=tuple(f"u{i}" for i in range(len(QUERIES))), queries=QUERIES),
    )  # fmt: skip


def test_every_method_trains_from_the_same_warm_start_and_is_measured_at_every_time(
    tiny: SimpleNamespace, tmp_path: Path
) -> None:
    before, rows, minutes = tiny.warm.policy_hash, [], (0.004, 0.02)
    task, queries = frontier.task_of(tiny), frontier.queries_of(tiny)
    for method in frontier.METHODS:
        files = [tmp_path / f"{method}-0{end}.json" for end in ("-trained", "")]
        frontier.train_method(method, task, queries, 0, minutes, tmp_path)
        frontier.measure_method(method, tiny, 0, tmp_path)
        written = [file.read_text() for file in files]
        frontier.train_method(
            method, frontier.task_of(tiny), frontier.queries_of(tiny), 0, minutes, tmp_path
        )  # kept, not done again
        frontier.measure_method(method, tiny, 0, tmp_path)
        assert [file.read_text() for file in files] == written
        rows += frontier.json.loads(written[1])
    assert tiny.warm.policy_hash == before
    assert [(r["method"], r["minutes"]) for r in rows] == [(m, t) for m in frontier.METHODS for t in minutes]
    assert all(r["seconds"] >= 60 * r["minutes"] for r in rows if r["method"] != "ours")
    assert {d["against"] for d in frontier.differences(rows, tmp_path)} == set(frontier.METHODS) - {"ours"}
    last = {load_rewriter(tmp_path / "policies" / f"{m}-0-{minutes[1]:g}").policy_hash for m in frontier.METHODS}
    assert len(last | {before}) == len(frontier.METHODS) + 1  # all trained, each in its way
    assert frontier.draw(rows).startswith("<svg") and "var(" not in frontier.draw(rows)
