"""What a slow ranker costs a phase of training: scoring beside sampling, under an ONNX ranker and a real KServe v2 server.

    OMP_NUM_THREADS=1 python -m benchmarks.ranker [--milliseconds 40] [--repeats 3]
    OMP_NUM_THREADS=1 python -m benchmarks.ranker --slow-policy --milliseconds 6 --samples 64 --out FILE

Every batch of 64 pairs takes 40 ms at least, whatever the model needs: a ranker on an accelerator or on another machine. One
phase is run twice to the same pairs: one thing after another, which gives the times of sampling, of scoring and of optimising,
and as training does it, scoring while it still samples. Wanted: at most 1.15 x (max(sampling, scoring) + optimising). Sampling
has one thread and the ranker one, in both. With the slow policy, wider and deeper, a phase samples about as long as it scores:
there most is to be saved. Writes benchmarks/results/ranker.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime
from rich.console import Console

from corewrite.cycle.steps.warm_start import warm_start
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import TrainingInstance
from corewrite.fusion import default_spec
from corewrite.relevance.backends import folder_hash
from corewrite.report.progress import ProgressSteps
from corewrite.rewriter import Rewriter, new_small_decoder
from corewrite.studies.quickstart.config import miniature
from corewrite.studies.summary import machine
from corewrite.training import TrainingConfig, train
from corewrite.version import VERSION

from .foreign_ranker.export import export_versions
from .foreign_ranker.measure import Platform, make_platform
from .foreign_ranker.serve import ServerMissingError, run_server
from .foreign_ranker.train import train_ranker

RESULTS = Path(__file__).parent / "results" / "ranker.json"
LIMIT = 1.15
_BATCH = 64


@dataclass(frozen=True)
class Phase:
    """Seconds of one phase, and what it learnt from."""

    sample: float
    score: float
    optimise: float
    whole: float
    pairs: int
    mean_log_reward: float


def slow_session(milliseconds: float) -> type[onnxruntime.InferenceSession]:
    """A session whose runs take a time at least; it waits as for another machine, computing nothing."""

    class SlowSession(onnxruntime.InferenceSession):
        def run(self, *args: Any, **more: Any) -> Any:
            end = time.perf_counter() + milliseconds / 1e3
            found = super().run(*args, **more)
            time.sleep(max(0.0, end - time.perf_counter()))
            return found

    return SlowSession


@contextmanager
def signal(kind: str, repository: Path, milliseconds: float) -> Iterator[dict[str, Any]]:
    """Settings of the signal `relevance`, with its model running."""
    if kind == "onnx":
        before = onnxruntime.InferenceSession
        onnxruntime.InferenceSession = slow_session(milliseconds)
        folder = repository / "1"
        try:
            yield {
                "kind": "onnx", "folder": folder, "pin": folder_hash(folder), "max_tokens": 64, "threads": 1, "batch": _BATCH,
                "inputs": {"picture": "document.visual"},
            }  # fmt: skip
        finally:
            onnxruntime.InferenceSession = before
        return
    os.environ["FOREIGN_RANKER_MILLISECONDS"] = str(milliseconds)
    try:
        with run_server(repository, server=kind) as server:
            yield {
                "kind": "kserve", "url": server.url, "model": server.model, "version": "1", "batch": _BATCH, "calibration": {},
                "inputs": {"text": "text", "document": "document", "picture": "document.visual"}, "timeout_ms": 20_000,
                "binary": kind == "triton",  # MLServer 1.7 answers 500 to binary tensors over HTTP
            }  # fmt: skip
    finally:
        del os.environ["FOREIGN_RANKER_MILLISECONDS"]


def run_phase(
    team: Platform, warm: Rewriter, instances: list[TrainingInstance], settings: dict[str, Any], config: TrainingConfig,
    seed: int, *, beside: bool,
) -> Phase:  # fmt: skip
    """One phase from the warm start, its ranker opened anew, so that no score is known before."""
    opener = RankerOpener(RankerSettings.model_validate({"signals": {"relevance": settings}}), team.world.catalogue)
    reward = replace(Deployment(opener.build(team.bundled), default_spec()).reward, waits=beside)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = train(warm.copy(), instances, reward, config, Path(folder), seed=seed, provenance={})
        whole = time.perf_counter() - began
    (record,) = report.records
    seconds = record["seconds"]
    optimise = seconds["reference"] + seconds["learn"]
    return Phase(seconds["sample"], seconds["score"], optimise, whole, record["pairs"], record["mean_sampled_log_reward"])


def compare(
    team: Platform, warm: Rewriter, instances: list[TrainingInstance], settings: dict[str, Any], config: TrainingConfig,
    repeats: int,
) -> dict[str, Any]:  # fmt: skip
    """One thing after another against scoring beside sampling, in turn."""
    found: dict[str, list[float]] = {}
    for seed in range(repeats):
        apart = run_phase(team, warm, instances, settings, config, seed, beside=False)
        both = run_phase(team, warm, instances, settings, config, seed, beside=True)
        # A model's score depends on how long the longest text of its batch is, by rounding.
        if apart.pairs != both.pairs or not isclose(apart.mean_log_reward, both.mean_log_reward, abs_tol=1e-6):
            raise AssertionError(f"seed {seed}: not the same phase: {apart}, {both}")
        rest = apart.whole - apart.sample - apart.score - apart.optimise
        bound = max(apart.sample, apart.score) + apart.optimise
        row = {
            "sample": apart.sample, "score": apart.score, "optimise": apart.optimise, "rest": rest,
            "one_after_another": apart.whole, "phase": both.whole, "bound": bound, "ratio": both.whole / bound,
            "saved": 1 - both.whole / apart.whole, "pairs": apart.pairs,
        }  # fmt: skip
        print(json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: {"median": median(v), "least": min(v), "most": max(v)} for name, v in found.items()}


def slow_policy(folder: Path, texts: list[str]) -> str:
    """Path of a decoder with random weights, fourteen times as many as the usual one's."""
    new_small_decoder(texts, seed=0, width=384, layers=5, heads=6).save(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=40.0, help="of a batch of 64 pairs, at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rankers", default="onnx,triton,mlserver", help="by commas")
    parser.add_argument("--slow-policy", action="store_true", help="one that samples as slowly as 6 ms a batch are scored")
    parser.add_argument("--samples", type=int, default=12, help="of an instance")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--small", action="store_true", help="a try that means nothing, and is not written down")
    given = parser.parse_args()
    steps, demo = ProgressSteps(Console(stderr=True)), miniature()
    config = TrainingConfig(phases=1, instances_per_phase=100 if given.small else 600, num_generations=given.samples)
    config = config.model_copy(update={"scoring": config.scoring.model_copy(update={"batch": 512})})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        team = make_platform(demo, Path(folder), steps)
        catalogue = team.world.catalogue
        with steps.step("train the ranker") as progress:
            impressions = team.windows[0].impressions(catalogue)
            ranker, _ = train_ranker(catalogue, impressions, seed=0, progress=progress)
        repository = export_versions({"1": ranker}, Path(folder) / "repository")
        with steps.step("warm start") as progress:
            repaired, good = team.windows[1].reformulations()
            texts = [*catalogue.titles, *(r.target for r in (*good, *repaired))]
            model = slow_policy(Path(folder) / "decoder", texts) if given.slow_policy else None
            bundled = embedded_deployment(catalogue, team.bundled, default_spec())
            fit = demo.pipeline.warm_start.model_copy(update={"learning_rate_pretrained": 1e-3})  # none was pretrained
            warm, report = warm_start(repaired, good, bundled, fit, seed=0, model=model, progress=progress)
        instances = team.windows[1].instances(catalogue, seed=0)
        rows = {}
        for kind in given.rankers.split(","):
            try:
                settings = stack.enter_context(signal(kind, repository, given.milliseconds))
            except ServerMissingError as error:
                rows[kind] = {"missing": str(error)}
                continue
            print(kind)
            rows[kind] = compare(team, warm, instances, settings, config, given.repeats)
            stack.close()
    about = {
        "milliseconds": given.milliseconds, "batch": _BATCH, "limit": LIMIT, "machine": machine(), "code_version": VERSION,
        "date": datetime.now(UTC).date().isoformat(), "instances": config.instances_per_phase,
        "samples": config.num_generations,
        "policy_parameters": report.parameters,
    }  # fmt: skip
    print(json.dumps({**about, "rankers": rows}, indent=1))
    if not given.small:
        given.out.write_text(json.dumps({**about, "rankers": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
