"""A run that was killed goes on to the very same weights; a full disk leaves the last checkpoint whole."""

import hashlib
import json
import os
import random
import resource
import signal
import time
import warnings

import pytest
import torch

from corewrite.rewriter import with_adapter
from corewrite.training import (
    CheckpointError,
    NotBitwiseWarning,
    ResumeError,
    RunFolder,
    TrainingConfig,
    checkpoint,
    parallel,
    train,
)
from corewrite.training.optimise import Cursor

CONFIG = TrainingConfig(
    phases=3, instances_per_phase=16, num_generations=8, k=2, learning_rate=2e-3, pairs_per_step=4, max_new_tokens=6,
    sampler_precision="float32", checkpoint_minutes=1e-9, minimum_gap=0.0, sync_ref_model=True,
)  # fmt: skip


def run(policy, instances, reward, folder, config=CONFIG, **kwargs):
    return train(policy, instances, reward, config, folder, seed=3, provenance={"data": "toy"}, **kwargs)


def digest(policy):
    """Of the weights alone, byte by byte."""
    h = hashlib.sha256()
    for name, value in sorted(policy.model.state_dict().items()):
        h.update(name.encode() + value.cpu().numpy().tobytes())
    return h.hexdigest()


def in_a_child(work):
    """Fork, so that the interpreter and its libraries need not start again."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which a GPU's context does not survive")
@pytest.mark.parametrize("overlap", [False, True])
def test_killed_at_random_points_it_ends_with_the_same_weights(start, instances, toy_reward, tmp_path, overlap):
    """SIGKILL at ten random moments of each kind of run, the first of them also while it resumes."""
    config = CONFIG.model_copy(update={"overlap": overlap})
    start.paths  # noqa: B018  # probed before the forks
    undisturbed = start.copy()
    run(undisturbed, instances, toy_reward, tmp_path / "undisturbed", config)
    expected = digest(undisturbed)
    begin = time.perf_counter()
    os.waitpid(in_a_child(lambda: run(start.copy(), instances, toy_reward, tmp_path / "timed", config)), 0)
    seconds = time.perf_counter() - begin
    moments = random.Random(7 + overlap)

    def kill_a_run_in(folder):
        """True if the signal hit a running child, False if the child had ended."""
        child = in_a_child(lambda: run(start.copy(), instances, toy_reward, folder, config))
        time.sleep(moments.random() * seconds)
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    killed, tried = 0, 0
    while killed < 10:
        tried += 1
        assert tried <= 60, "the kills must hit a running child"
        folder = tmp_path / str(tried)
        if not kill_a_run_in(folder):
            seconds *= 0.8  # the timed child ran on a busier machine
            continue
        killed += 1
        if killed == 1:
            kill_a_run_in(folder)  # while it resumes
        resumed = start.copy()
        report = run(resumed, instances, toy_reward, folder, config)
        assert report.phases == 3
        assert digest(resumed) == expected, f"kill {killed}"


class Stop(BaseException):
    pass


def stopped(policy, instances, reward, folder, config, phase, when="observe"):
    """Run until the end of `phase`, before its record."""

    def stop(now, _policy):
        if now == phase:
            raise Stop
        return {}

    with pytest.raises(Stop):
        run(policy, instances, reward, folder, config, observe=stop)


def test_what_was_scored_is_the_truth(start, instances, toy_reward, tmp_path):
    """A resumed phase reads its rewards, and asks neither sampler nor reward again: a reward that has changed is not seen."""
    undisturbed = start.copy()
    run(undisturbed, instances, toy_reward, tmp_path / "a")
    stopped(start.copy(), instances, toy_reward, tmp_path / "b", CONFIG, 2)

    def another(xs, texts):
        raise AssertionError("must not be asked")

    resumed = start.copy()
    run(resumed, instances, another, tmp_path / "b")
    assert digest(resumed) == digest(undisturbed)


def test_instances_lost_before_the_kill_stay_lost(start, instances, toy_reward, tmp_path):
    config = CONFIG.model_copy(update={"scoring": CONFIG.scoring.model_copy(update={"batch": 1, "retries": 0})})

    def partly(xs, texts):
        if xs[0].instance_id in {"q1", "q2", "q6"}:
            raise ConnectionError("away")
        return toy_reward(xs, texts)

    undisturbed, resumed = start.copy(), start.copy()
    a = run(undisturbed, instances, partly, tmp_path / "a", config)
    stopped(start.copy(), instances, partly, tmp_path / "b", config, 2)
    b = run(resumed, instances, toy_reward, tmp_path / "b", config)  # the server is back
    assert digest(resumed) == digest(undisturbed)
    assert [set(r["instances_lost"]) for r in a.records] == [set(r["instances_lost"]) for r in b.records]
    assert any(r["instances_lost"] for r in a.records)


def test_half_a_phase_is_not_learnt_twice(start, instances, toy_reward, tmp_path):
    steps = []

    def counting(what, done, total):
        if what == "learn":
            steps.append(done)
            if len(steps) == 3:
                raise Stop

    with pytest.raises(Stop):
        run(start.copy(), instances, toy_reward, tmp_path / "b", progress=counting)
    state = json.loads(metadata(tmp_path / "b/state.safetensors"))
    assert (state["phase"], state["cursor"]["step"]) == (0, 2), "two steps are on disk, the third had just been made"
    steps.clear()
    resumed = start.copy()
    run(resumed, instances, toy_reward, tmp_path / "b", progress=lambda what, done, total: steps.append((what, done)))
    assert next(x for x in steps if x[0] == "learn") == ("learn", 3)
    undisturbed = start.copy()
    run(undisturbed, instances, toy_reward, tmp_path / "a")
    assert digest(resumed) == digest(undisturbed)


def metadata(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata()["corewrite"]


@pytest.mark.parametrize("minutes", [1e-9, 60.0])
def test_a_run_goes_on_with_the_threads_it_began_with(start, instances, toy_reward, tmp_path, minutes):
    """Also before the first checkpoint, where only what was scored is taken over."""
    config = CONFIG.model_copy(update={"checkpoint_minutes": minutes})
    threads, used = torch.get_num_threads(), []

    def counting(xs, texts):
        used.append(torch.get_num_threads())
        return toy_reward(xs, texts)

    undisturbed, resumed = start.copy(), start.copy()
    run(undisturbed, instances, counting, tmp_path / "a", config)
    stopped(start.copy(), instances, counting, tmp_path / "b", config, 1)
    try:
        torch.set_num_threads(threads + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotBitwiseWarning)
            run(resumed, instances, counting, tmp_path / "b", config)
        assert torch.get_num_threads() == threads + 1, "afterwards as before"
    finally:
        torch.set_num_threads(threads)
    assert set(used) == {threads}
    assert digest(resumed) == digest(undisturbed)


def test_another_environment_is_said(start, instances, toy_reward, tmp_path, monkeypatch):
    stopped(start.copy(), instances, toy_reward, tmp_path, CONFIG, 1)
    monkeypatch.setattr(checkpoint.platform, "machine", lambda: "abacus")
    with pytest.warns(NotBitwiseWarning, match="processor .* then, abacus .* now"):
        run(start.copy(), instances, toy_reward, tmp_path)


def test_another_environment_is_said_before_the_first_checkpoint_too(start, instances, toy_reward, tmp_path, monkeypatch):
    """What was sampled and scored is taken over, so the result is not that of the new environment either."""
    config = CONFIG.model_copy(update={"checkpoint_minutes": 60.0})
    stopped(start.copy(), instances, toy_reward, tmp_path, config, 0)
    assert not (tmp_path / "state.safetensors").exists()
    monkeypatch.setattr(checkpoint.platform, "machine", lambda: "abacus")
    with pytest.warns(NotBitwiseWarning, match="processor .* then, abacus .* now"):
        run(start.copy(), instances, toy_reward, tmp_path, config)


def test_a_run_goes_on_under_another_version_of_the_code(start, instances, toy_reward, tmp_path):
    """Data is read for ever: an upgrade must not cost a training that is half done. What else it comes from stays the same."""

    def under(version, policy, observe=lambda phase, policy: {}, data="toy"):
        about = {"data": data, "code_version": version}
        train(policy, instances, toy_reward, CONFIG, tmp_path / "a", seed=3, provenance=about, observe=observe)

    def stop(phase, policy):
        raise Stop

    with pytest.raises(Stop):
        under("1.0", start.copy(), stop)
    begun = (tmp_path / "a/run.json").read_bytes()
    with pytest.raises(ResumeError, match="another provenance"):
        under("1.0", start.copy(), data="other")
    resumed, undisturbed = start.copy(), start.copy()
    with pytest.warns(NotBitwiseWarning, match=r"corewrite 1\.0 then, 2\.0 now"):
        under("2.0", resumed)
    assert (tmp_path / "a/run.json").read_bytes() == begun, "it says who began it"
    run(undisturbed, instances, toy_reward, tmp_path / "b")
    assert digest(resumed) == digest(undisturbed)


def test_another_number_of_processes_is_said(tmp_path, monkeypatch):
    """Gradients are then added up in another order."""
    identity = {"data": "toy"}
    RunFolder(tmp_path, identity).write_state(1, Cursor(), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunFolder(tmp_path, identity).state()
    monkeypatch.setattr(parallel, "world", lambda: 2)
    with pytest.warns(NotBitwiseWarning, match="processes 1 then, 2 now"):
        RunFolder(tmp_path, identity).state()


def test_a_full_disk_leaves_the_checkpoint_whole(start, instances, toy_reward, tmp_path):
    """The file-size limit of the process stands in for the disk: the kernel refuses the write half-way."""
    stopped(start.copy(), instances, toy_reward, tmp_path, CONFIG, 1)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(CheckpointError, match="free some space"):
            run(start.copy(), instances, toy_reward, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("*partial*"))
    assert all(f.read_bytes() == content for f, content in before.items())
    resumed, undisturbed = start.copy(), start.copy()
    run(resumed, instances, toy_reward, tmp_path)
    run(undisturbed, instances, toy_reward, tmp_path.with_name("undisturbed"))
    assert digest(resumed) == digest(undisturbed)


def test_an_adapter_is_all_that_is_synced_and_checkpointed(start, instances, toy_reward, tmp_path):
    pytest.importorskip("peft")
    config = CONFIG.model_copy(update={"learning_rate": 2e-2})

    def adapted():
        return with_adapter(start, rank=2, alpha=4, seed=0)

    undisturbed = adapted()
    report = run(undisturbed, instances, toy_reward, tmp_path / "a", config)
    size = sum(p.numel() for p in undisturbed.trained_parameters)
    assert size < 0.2 * start.parameters
    assert {r["sync_bytes"] for r in report.records} == {4 * size}
    assert (tmp_path / "a/state.safetensors").stat().st_size < 4 * 4.5 * size + 20_000  # adapter, reference, two moments
    frozen = dict(start.model.named_parameters())
    kept = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in undisturbed.model.named_parameters()}
    assert all(torch.equal(kept[name], p) for name, p in frozen.items())
    stopped(adapted(), instances, toy_reward, tmp_path / "b", config, 1)
    resumed = adapted()
    run(resumed, instances, toy_reward, tmp_path / "b", config)
    assert digest(resumed) == digest(undisturbed) != digest(adapted())
