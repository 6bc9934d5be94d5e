"""A longitudinal simulation of three weeks in miniature; and the arithmetic of comparing arms."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from corewrite.registry import Registry
from corewrite.report.progress import ProgressSteps
from corewrite.studies.longitudinal.config import miniature_longitudinal
from corewrite.studies.longitudinal.layout import ARMS, LongitudinalLayout
from corewrite.studies.longitudinal.run import run_longitudinal
from corewrite.studies.longitudinal.summary import compare, summarise_longitudinal, write_longitudinal


@pytest.mark.e2e
def test_three_weeks(tmp_path: Path):
    config = miniature_longitudinal(seed=0, weeks=3)
    steps = ProgressSteps(Console(quiet=True))
    rows = run_longitudinal(config, tmp_path, steps=steps)
    assert [(r["week"], r["arm"]) for r in rows] == [(w, a) for w in (1, 2, 3) for a in ARMS]
    for r in rows:
        assert 0 <= r["cqr"] <= 1 and 0 <= r["give_up"] <= 1 and 0 < r["ndcg10"] < 1 and 0 < r["judge"] <= 1
        assert (r["verdict"] in ("promote", "hold", "reject")) == (r["arm"] in ("weekly", "no_gate"))
    assert all(r["verdict"] == "promote" for r in rows if r["arm"] == "no_gate")
    assert len({r["policy"] for r in rows if r["arm"] == "never"}) == 1
    assert {r["policy"] for r in rows if r["arm"] == "holdback"} == {""}
    assert all(r["reward"] == 0 for r in rows if r["arm"] == "holdback")
    assert Registry(tmp_path / "weekly" / "run" / "registry").verify_all() == []
    first, second = (pq.read_table(tmp_path / "weeks" / f"{week}-labels.parquet") for week in ("00", "03"))
    assert len(set(second["query"].to_pylist())) <= 50 < len(set(first["query"].to_pylist())), "raters come again in week 2"
    # And the pairs that the cycles of earlier weeks asked about: the last week's are the next one's labels.
    pairs = {p.name: pq.read_table(p).num_rows for p in (tmp_path / "weeks").glob("*-*-labels.parquet")}
    assert {name[:2] for name in pairs} == {"01", "02", "03", "04"} and set(pairs.values()) == {config.pipeline.pairs_to_grade}
    known = first.num_rows + second.num_rows + sum(n for name, n in pairs.items() if name[:2] < "04")
    assert pq.read_table(tmp_path / "labels.parquet").num_rows == known

    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "weeks").iterdir()}
    assert run_longitudinal(config, tmp_path, steps=steps) == rows, "going on with a finished run does nothing"
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "weeks").iterdir()} == before
    with pytest.raises(ValueError, match="under other settings"):
        run_longitudinal(config.model_copy(update={"sessions": 1_501}), tmp_path, steps=steps)

    about = summarise_longitudinal(config, tmp_path, rows, 1.0)
    page = write_longitudinal(tmp_path, rows, about).read_text("utf-8")
    assert "never" in page and json.loads((tmp_path / "weeks.json").read_text("utf-8")) == rows
    for c in about["comparisons"]:
        assert c["low"] <= c["difference"] <= c["high"]
    by = {(r["arm"], r["week"]): r for r in rows}
    nothing = compare(tmp_path, [2], "never", "never", "ndcg10")
    assert (nothing["difference"], nothing["low"], nothing["high"]) == (0, 0, 0)
    gain = compare(tmp_path, [2], "never", "holdback", "ndcg10")["difference"]
    assert gain == pytest.approx(by["never", 1]["ndcg10"] - by["holdback", 1]["ndcg10"])


def test_a_branch_is_taken_back_after_a_kill_in_the_middle_of_it(tmp_path: Path):
    for name in ("no_gate", ".no_gate.joined"):
        (tmp_path / name / "run").mkdir(parents=True)
    LongitudinalLayout(tmp_path).join()
    assert list(tmp_path.iterdir()) == []


def test_a_paired_difference_of_rates_has_the_bootstraps_error(tmp_path: Path):
    rng = np.random.default_rng(0)
    n = 400
    (tmp_path / "weeks").mkdir()
    ended = {arm: rng.poisson(3, n) + 1 for arm in ("weekly", "never")}
    lazy = rng.beta(2, 4, n)
    changed = {arm: rng.binomial(ended[arm], lazy) for arm in ended}
    for arm in ended:
        table = {"user_id": [f"u{i}" for i in range(n)], "ended": ended[arm], "changed": changed[arm], "gave_up": changed[arm]}
        pq.write_table(pa.table(table), tmp_path / "weeks" / f"02-{arm}-users.parquet")
    found = compare(tmp_path, [2], "weekly", "never", "cqr")
    a, b = (changed[arm].sum() / ended[arm].sum() for arm in ("weekly", "never"))
    assert found["difference"] == pytest.approx(a - b)
    draws = rng.integers(0, n, (4_000, n))
    rates = {arm: changed[arm][draws].sum(1) / ended[arm][draws].sum(1) for arm in ended}
    values = rates["weekly"] - rates["never"]
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.966 * np.std(values), rel=0.06)
