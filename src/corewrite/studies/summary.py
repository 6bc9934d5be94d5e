"""Contents of `summary.json`."""

import os
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from corewrite.cycle import CandidateRun, RelevanceFit
from corewrite.experiment import AACheck
from corewrite.relevance import JudgeReport
from corewrite.simulation.world import World
from corewrite.studies.baselines import compare
from corewrite.studies.truth import TrueQuality
from corewrite.version import VERSION

_SHOWN = ("original", "warm_start", "champion", "recoverable", "oracle")


def summarise(
    seed: int,
    world: World,
    searches: Mapping[str, int],
    relevance: RelevanceFit,
    judge: JudgeReport,
    run: CandidateRun,
    retraining: CandidateRun | None,
    measured: TrueQuality,
    launches: Sequence[Mapping[str, Any]],
    aa: AACheck | None,
) -> dict[str, Any]:
    """The figures of a demo, timings and memory aside: the same seed gives the same dictionary.

    `champion` is the policy of launch 2: `run`'s candidate, whether or not the gate promoted it (see `gate.verdict`), or the
    one that was trained on from it, where the gate promoted that (`retraining`). `reward` is `run`'s, of the gate's searches;
    `ndcg10`, `comparison`, `judge` and `intent_named` are of the fresh week.
    """
    checks = {c.name: c for c in run.gate.checks}
    reward = checks.get("fused_reward")
    assert run.warm_report is not None and run.warm_report.fit is not None  # the demo is fine-tuned on reformulations
    fit = run.warm_report.fit
    return {
        "seed": seed,
        "code_version": VERSION,
        "command": f"corewrite demo --seed {seed}",
        "machine": machine(),
        "platform": {
            "documents": len(world.catalogue),
            "entities": len(world.names),
            "searches": {**searches, **{str(launch["launch"]): launch["searches"] for launch in launches}},
        },
        "relevance": {**asdict(relevance.report), "auc_without_picture": relevance.text_only.auc},
        "judge_model": asdict(judge),
        "probe": {**asdict(run.probe), "passed": run.probe.passed},
        "warm_start": {**asdict(fit), "kinds": run.warm_report.kinds, "parameters": run.warm_report.parameters},
        "ndcg10": measured.ndcg10,
        "searches_measured": measured.searches,
        "comparison": compare([measured.sums]).as_dict(),
        "reward": {"warm_start": reward and reward.champion, "champion": reward and reward.candidate},
        "judge": {name: measured.judge[name] for name in _SHOWN},
        "intent_named": {name: measured.named[name] for name in _SHOWN},
        "training": {k: v for k, v in asdict(run.training).items() if k != "records"},
        "gate": run.gate.as_dict(),
        "retraining": None if retraining is None else _retraining(retraining),
        "experiment": list(launches),
        "aa": None if aa is None else aa.as_dict(),
        "provenance": run.provenance.as_dict(),
    }


def _retraining(run: CandidateRun) -> dict[str, Any]:
    """Of the policy of launch 2, trained on from the champion of launch 1."""
    reward = next((c for c in run.gate.checks if c.name == "fused_reward"), None)
    return {
        "spec_hash": run.provenance.spec_hash,
        "training": {k: v for k, v in asdict(run.training).items() if k != "records"},
        "reward": {"start": reward and reward.champion, "candidate": reward and reward.candidate},
        "gate": {"verdict": run.decision.verdict, "reason": run.decision.reason},
    }


def peak_rss_mib() -> int:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def machine() -> str:
    """Processor, cores and memory of this machine."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    except OSError:
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {cores} cores, {memory:.0f} GiB"
