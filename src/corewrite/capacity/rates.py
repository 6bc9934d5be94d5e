"""Rates: seconds per unit of each step's work on a machine, fitted to phases that were run there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from corewrite.training.config import TrainingConfig

FloatArray = npt.NDArray[np.float64]

STEPS = ("sync", "sample", "score", "reference", "learn", "observe")
"""Steps of a phase, in order: weights to the sampler and the checkpoint; sampling; reward; reference; gradient pass; held-out
figures for the record."""
# A second rate must predict phases left out by so much better: what little two terms differ within one run is noise.
_CLEARLY = 0.5
_TICK = 1e-3  # seconds: what a record rounds to


class PlanError(ValueError):
    """A plan that needs rates that were not measured; the message says what to give."""


@dataclass(frozen=True)
class Work:
    """The amount of work in one phase.

    Attributes:
        prompt_tokens: Tokens of its distinct prompts.
        sampled_tokens: Tokens sampled, end-of-sequence included, of distinct prompts.
        scored: Rewrites that the reward is asked about.
        packed_tokens: Tokens of its packed preference rows.
        optimizer_steps: Optimizer steps.
    """

    prompt_tokens: float
    sampled_tokens: float
    scored: float
    packed_tokens: float
    optimizer_steps: float


@dataclass(frozen=True)
class Phase:
    """A phase that was run, as its record tells.

    Attributes:
        instances, prompts, rollouts: Instances, their distinct prompts, rewrites sampled.
        prompt_tokens, sampled_tokens: Tokens of distinct prompts, and sampled from them.
        candidates: Distinct candidates of all instances, the identities included.
        scored: Of those, the ones no earlier phase had scored.
        rows, pairs: Instances with a pair, and their pairs.
        pair_tokens: Mean tokens of a pair's response.
        packed_tokens: Tokens of the packed rows.
        optimizer_steps: Optimizer steps.
        sync_bytes: Bytes of weights handed to the sampler.
        seconds: Of each of `STEPS`; sync and score may be missing, where they were not measured.
    """

    instances: int
    prompts: int
    rollouts: int
    prompt_tokens: int
    sampled_tokens: int
    candidates: int
    scored: int
    rows: int
    pairs: int
    pair_tokens: float
    packed_tokens: int
    optimizer_steps: int
    sync_bytes: int
    seconds: Mapping[str, float]

    def work(self) -> Work:
        """What it did."""
        return Work(
            self.prompt_tokens,
            self.sampled_tokens,
            self.scored,
            self.packed_tokens,
            self.optimizer_steps,
        )


@dataclass(frozen=True)
class MeasuredRun:
    """Phases of one run.

    Attributes:
        source: Where they come from, for people.
        machine: Processor or GPU, and threads.
        device: "cpu", or the GPU's name.
        config: The run's settings.
        phases: Its phases, the first (warm-up) left out where there are more.
        notes: What there is to know of how it was measured.
    """

    source: str
    machine: str
    device: str
    config: TrainingConfig
    phases: tuple[Phase, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """Seconds per unit of work, on the machine where they were measured.

    Attributes:
        prompt_token, sampled_token: Of sampling; equal where the measured runs could not tell them apart.
        scored: A rewrite's reward, with `workers` calls at the same time; None: not measured.
        reference_token: A packed token of the reference's pass.
        learnt_token: A packed token of the gradient pass, forward and backward.
        optimizer_step: An optimizer step beside its tokens.
        sync: Handing over weights, comparing them, and the phase's checkpoint; None: not measured.
        observe: Held-out figures of a phase.
        machine, device: Where: "cpu" or the GPU's name is the device.
        workers: Calls of the reward at the same time.
        notes: What they rest on.
    """

    prompt_token: float
    sampled_token: float
    scored: float | None
    reference_token: float
    learnt_token: float
    optimizer_step: float
    sync: float | None
    observe: float
    machine: str
    device: str
    workers: int = 1
    notes: tuple[str, ...] = ()

    def seconds(self, work: Work) -> dict[str, float]:
        """Seconds of each of `STEPS` in a phase, on the measured machine; what was not measured counts as 0."""
        return {
            "sync": self.sync or 0.0,
            "sample": self.prompt_token * work.prompt_tokens + self.sampled_token * work.sampled_tokens,
            "score": (self.scored or 0.0) * work.scored,
            "reference": self.reference_token * work.packed_tokens,
            "learn": self.learnt_token * work.packed_tokens + self.optimizer_step * work.optimizer_steps,
            "observe": self.observe,
        }


def fit(runs: Sequence[MeasuredRun]) -> Rates:
    """Rates from measured phases, none below 0.

    A step with one term gets its seconds over its work. Where two terms are possible, one rate (of prompt and sampled tokens
    alike; of learnt tokens, optimizer steps being free) is compared with two by least squares of the relative error: two are
    taken if they predict each phase from the others clearly better. Phases of one shape cannot tell them apart, runs with
    another number of samples can.

    Args:
        runs: Of one model on one machine.

    Raises:
        PlanError: no phase, or different machines or models.
    """
    phases = [(p, p.work()) for run in runs for p in run.phases]
    if not phases:
        raise PlanError("no finished phase to take rates from: let the run finish one phase at least")
    machines = sorted({run.machine for run in runs})
    if len(machines) > 1:
        raise PlanError(f"the runs were measured on different machines ({'; '.join(machines)}): give runs of one machine")
    if len(sizes := {p.sync_bytes for p, _ in phases}) > 1:
        raise PlanError(f"the runs trained models of {min(sizes)} to {max(sizes)} bytes: give runs of one model")
    if len(workers := {run.config.scoring.workers for run in runs}) > 1:
        raise PlanError(f"the runs had {min(workers)} to {max(workers)} reward workers: give runs with equal numbers")
    rewarded = all("score" in p.seconds for p, _ in phases)

    def of(step: str, amounts: Callable[[Work], Sequence[float]], together: Sequence[float] = (1.0,)) -> list[float]:
        work = np.array([amounts(w) for _, w in phases], float)
        return [float(r) for r in _rates(work, np.array([p.seconds[step] for p, _ in phases]), np.array(together))]

    sampling = of("sample", lambda w: (w.prompt_tokens, w.sampled_tokens), together=(1.0, 1.0))
    learning = of("learn", lambda w: (w.packed_tokens, w.optimizer_steps), together=(1.0, 0.0))
    syncs = [p.seconds["sync"] for p, _ in phases if "sync" in p.seconds]
    notes = [note for run in runs for note in run.notes]
    if sampling[0] == sampling[1] and len({run.config.num_generations for run in runs}) == 1:
        notes.append(
            "sampling takes as long for a prompt's token as for a sampled one: runs with "
            f"{runs[0].config.num_generations} samples do not tell them apart; to plan for another number of samples, measure "
            "a run with that number too"
        )
    if not syncs:
        notes.append("sync and checkpoint count as 0 s: the files' times, which tell them, are lost or of one phase only")
    return Rates(
        prompt_token=sampling[0],
        sampled_token=sampling[1],
        scored=of("score", lambda w: (w.scored,))[0] if rewarded else None,
        reference_token=of("reference", lambda w: (w.packed_tokens,))[0],
        learnt_token=learning[0],
        optimizer_step=learning[1],
        sync=median(syncs) if syncs else None,
        observe=median(p.seconds["observe"] for p, _ in phases),
        machine=machines[0],
        device=runs[0].device,
        workers=workers.pop(),
        notes=tuple(dict.fromkeys(notes)),
    )


def _rates(work: FloatArray, seconds: FloatArray, together: FloatArray) -> FloatArray:
    """Non-negative rates, [terms], of work [phases, terms]: proportional to `together`, or free if that is better."""

    def bound(w: FloatArray, s: FloatArray) -> FloatArray:
        done = (w @ together).sum()
        return together * (s.sum() / done if done else 0.0)

    def free(w: FloatArray, s: FloatArray) -> FloatArray:
        scale = np.maximum(s, _TICK)
        size = np.maximum(w.max(0), 1.0)  # columns of one order, or the solver stops early
        return np.asarray(nnls(w / scale[:, None] / size, s / scale)[0] / size, float)

    def error(form: Callable[[FloatArray, FloatArray], FloatArray]) -> float:
        """Mean relative error of each phase, predicted from the others."""
        every = np.arange(len(seconds))
        found = [abs(work[i] @ form(work[every != i], seconds[every != i]) - seconds[i]) for i in every]
        return float(np.mean(found / np.maximum(seconds, _TICK)))

    if work.shape[1] == 1 or len(seconds) <= work.shape[1]:
        return bound(work, seconds)
    return free(work, seconds) if error(free) < _CLEARLY * error(bound) else bound(work, seconds)
