"""The policy that training began from, found again in a run folder."""

import json
from dataclasses import asdict

import pytest

from corewrite.cycle.kept_start import NoWarmStartError, keep_start, load_warm_start
from corewrite.cycle.records import START_POLICY, CycleJournal
from corewrite.rewriter import FineTuneReport, RewriterError, new_small_decoder
from corewrite.storage.run_layout import RunLayout


def policy(seed):
    return new_small_decoder(["a cat", "a dog"] * 5, seed=seed, vocabulary=300, width=32, layers=1, heads=2)


def test_a_training_keeps_one(tmp_path):
    start = RunLayout(tmp_path / "run").start
    keep_start(policy(0), start)
    keep_start(policy(1), start)
    assert load_warm_start(tmp_path / "run").policy_hash == policy(1).policy_hash
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["start"]


def begin(run, week, started, **about):
    journal = CycleJournal(run, week)
    started.save(RunLayout(run).cycle(week).start)
    journal.once(START_POLICY, lambda: {"policy_hash": started.policy_hash, **about, **asdict(FineTuneReport(1, 2.0, 1.0, 3))})


def test_of_cycles_it_is_the_first_that_began_from_no_champion(tmp_path):
    with pytest.raises(NoWarmStartError, match=r"keeps no warm start: .*--warm-start"):
        load_warm_start(tmp_path)
    begin(tmp_path, "w1", policy(1))
    with pytest.raises(NoWarmStartError):
        load_warm_start(tmp_path)
    begin(tmp_path, "w2", policy(2), kinds={"good": 3})
    begin(tmp_path, "w3", policy(3), kinds={"good": 3})
    assert load_warm_start(tmp_path).policy_hash == policy(2).policy_hash
    file = RunLayout(tmp_path).cycle("w2").step("start-policy")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"policy_hash": "0" * 64}))
    with pytest.raises(RewriterError, match="the cycle wrote down 000000000000: it was changed since"):
        load_warm_start(tmp_path)
