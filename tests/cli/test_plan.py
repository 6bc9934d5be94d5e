"""`corewrite plan` as a user meets it."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from corewrite.capacity.plan import build_workload, plan
from corewrite.capacity.profile import read_run, synthetic_instances
from corewrite.capacity.rates import fit
from corewrite.cli.main import app
from corewrite.rewriter import Example, fine_tune, new_small_decoder
from corewrite.training import TrainingConfig, train


def call(*args):
    return CliRunner().invoke(app, ["plan", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "160"})


def said(result):
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def policy():
    texts = ["cat show", "dog race", "fish news"] * 4
    found = new_small_decoder(texts, seed=0, vocabulary=300, width=32, heads=2)
    fine_tune(found, [Example(x.query, "cat show") for x in synthetic_instances(found, 64, 24, 4)], epochs=4, seed=0)
    return found


@pytest.fixture(scope="module")
def trained(policy, tmp_path_factory):
    """A run folder with its training in it."""
    folder = tmp_path_factory.mktemp("run")

    def reward(xs, texts):
        return [np.array([0.0 if t == x.query.text else -1.0 for t in row]) for x, row in zip(xs, texts, strict=True)]

    config = TrainingConfig(phases=3, instances_per_phase=16, num_generations=4, max_new_tokens=4)
    instances = synthetic_instances(policy, 48, 24, 4)
    train(policy.copy(), instances, reward, config, folder / "training", seed=0, provenance={})
    return folder


def test_a_plan_from_a_run_is_what_the_library_gives(trained):
    found = json.loads(call("--instances", 5_000_000, "--run", trained, "--phases", 20, "--json").stdout)
    measured = read_run(trained / "training")
    workload = build_workload(measured)
    assert found["workload"]["instances"] == 5_000_000 and found["workload"]["num_generations"] == 4 and found["syncs"] == 20
    assert found["bytes_synced"] == 20 * workload.synced_bytes
    rates = fit([measured])
    by_step = {s["name"]: s["seconds"] for s in found["steps"]}
    assert list(by_step) == ["sync", "sample", "score", "reference", "learn", "observe"]
    assert by_step["sync"] == pytest.approx(20 * rates.sync)
    small = {s.name: s.seconds for s in plan(rates, workload).steps}
    assert by_step["sample"] == pytest.approx(small["sample"] * 5_000_000 / 48)
    assert by_step["score"] == pytest.approx(small["score"] * 5_000_000 / 48)
    assert found["seconds"] == pytest.approx(sum(by_step.values())) and found["hours"] == found["seconds"] / 3_600
    assert found["bottleneck"] == max(by_step, key=by_step.get) and found["assumptions"]


def test_the_table_names_bottleneck_cost_machine_and_assumptions(trained):
    result = call("--instances", 100_000, "--run", trained, "--gpus", 2, "--speedup", 5, "--price-per-hour", 3)
    text = said(result)
    assert result.exit_code == 0
    found = json.loads(
        call("--instances", 100_000, "--run", trained, "--gpus", 2, "--speedup", 5, "--price-per-hour", 3, "--json").stdout
    )
    assert "A cycle of 100,000 instances in 3 phases, 4 samples and k = 1" in text
    assert f"bottleneck {found['bottleneck']}" in text and f"{found['cost']:,.2f}" in text
    assert "5 times as fast as measured: given, not measured" in text and "2 GPUs (data parallel)" in text
    assert f"measured on {found['machine']}" in text and "1 threads" in found["machine"]
    assert "KiB in 3 syncs" in text


def test_measured_rates_can_be_saved_and_planned_with_again(trained, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(call("--instances", 1_000, "--run", trained, "--json").stdout)
    again = json.loads(call("--instances", 1_000, "--rates", file, "--json").stdout)
    assert again == json.loads(file.read_text())
    changes = ("--samples", 16, "--k", 2, "--prompt-tokens", 48, "--rewrite-tokens", 8, "--workers", 2)
    more = json.loads(call("--instances", 1_000, "--rates", file, *changes, "--json").stdout)
    before, after = ({s["name"]: s["seconds"] for s in p["steps"]} for p in (again, more))
    assert all(after[step] > before[step] for step in ("sample", "score", "reference", "learn"))
    assert more["workload"]["prompt_tokens"] == 48 and more["workload"]["rewrite_tokens"] == 8
    cheap = json.loads(call("--instances", 1_000, "--rates", file, "--seconds-per-reward", 0, "--json").stdout)
    assert {s["name"]: s["seconds"] for s in cheap["steps"]}["score"] == 0
    file.write_text('{"rates": {}}')
    result = call("--instances", 1_000, "--rates", file)
    assert result.exit_code == 1 and "plan.json is no plan of this version" in said(result)


def test_calibration_of_a_model(policy, tmp_path):
    policy.save(tmp_path / "model")
    result = call(
        "--instances", 10_000, "--model", tmp_path / "model", "--seconds-per-reward", 0.01, "--prompt-tokens", 24,
        "--rewrite-tokens", 3, "--samples", 2, "--json",
    )  # fmt: skip
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    score = {s["name"]: s["seconds"] for s in found["steps"]}["score"]
    assert score == pytest.approx(0.01 * 10_000 * (1 + 2 * found["workload"]["new_texts"]))
    assert found["workload"]["num_generations"] == 2 and found["workload"]["phases"] == TrainingConfig().phases
    assert any("made-up instances" in a for a in found["assumptions"])


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "say where rates come from"),
        (("--run", "a", "--calibrate"), 2, "say where rates come from"),
        (("--run", "nowhere"), 1, "nowhere holds no training run"),
        (("--rates", "nowhere.json"), 1, "nowhere.json"),
        (("--model", "anything"), 1, "--seconds-per-reward"),
        (("--calibrate", "--seconds-per-reward", 0, "--prompt-tokens", 300), 1, "up to 96 tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_the_fix(args, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("--instances", 1_000, *args)
    assert result.exit_code == code and message in said(result) and "Traceback" not in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="rates would be a GPU's")
def test_gpus_are_not_priced_from_a_processor(trained):
    result = call("--instances", 1_000, "--run", trained, "--gpus", 8)
    assert result.exit_code == 1 and "--speedup" in said(result)
    result = call("--instances", 1_000, "--calibrate", "--seconds-per-reward", 0, "--gpus", 8)
    assert result.exit_code == 1 and "say nothing about 8 GPUs" in said(result) and "calibrate" not in said(result)


def test_more_phases_than_instances_are_refused(trained):
    result = call("--instances", 20, "--run", trained, "--phases", 21)
    assert result.exit_code == 1 and "20 instances cannot fill 21 phases" in said(result)
