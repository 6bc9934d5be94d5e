"""From rates to the hours, cost and bytes of a weekly cycle: pure arithmetic.

Assumptions beyond the measured rates are part of the plan.
"""

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from corewrite.capacity.rates import STEPS, MeasuredRun, PlanError, Rates, Work

_OVER_GPUS = ("sample", "reference", "learn")
_PROCESSOR = "cpu"


@dataclass(frozen=True)
class Workload:
    """Size of a training cycle, and means over its phases.

    Attributes:
        instances: Training instances of the cycle, each used once.
        phases: Phases they are cut into; weights are synced once in each.
        num_generations: N, samples per instance.
        k: Pairs per instance at most.
        prompt_tokens: Mean tokens of a distinct prompt.
        rewrite_tokens: Mean tokens of a sampled rewrite, end-of-sequence included.
        distinct_prompts: Distinct prompts per instance of a phase.
        new_texts: Share of an instance's samples whose text is new among them and is scored.
        paired: Share of instances with a pair.
        filled: Pairs of such an instance, over k.
        row_prompt_tokens: Mean tokens of such an instance's prompt.
        pair_tokens: Mean tokens of a pair's response.
        identity: Whether the query itself is scored too.
        pairs_per_step: Pairs of an optimizer step.
        synced_bytes: Bytes of weights handed to a sampler in a sync: those that are trained, in float32.
        sync_ref_model: Whether the reference moves, and so is checkpointed.
        workers: Calls of the reward at the same time.
    """

    instances: int
    phases: int
    num_generations: int
    k: int
    prompt_tokens: float
    rewrite_tokens: float
    distinct_prompts: float
    new_texts: float
    paired: float
    filled: float
    row_prompt_tokens: float
    pair_tokens: float
    identity: bool
    pairs_per_step: int
    synced_bytes: int
    sync_ref_model: bool
    workers: int

    def __post_init__(self) -> None:
        for name in ("instances", "phases", "num_generations", "k", "rewrite_tokens", "workers"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.prompt_tokens <= 0:
            raise PlanError(f"prompt_tokens must be above 0, not {self.prompt_tokens}")
        if self.phases > self.instances:
            raise PlanError(f"{self.instances} instances cannot fill {self.phases} phases: plan fewer phases")

    def with_prompt_tokens(self, tokens: float) -> "Workload":
        """The same with prompts of that mean length."""
        longer = tokens / self.prompt_tokens
        return replace(self, prompt_tokens=tokens, row_prompt_tokens=self.row_prompt_tokens * longer)

    def with_rewrite_tokens(self, tokens: float) -> "Workload":
        """The same with rewrites of that mean length."""
        return replace(self, rewrite_tokens=tokens, pair_tokens=max(1.0, self.pair_tokens * tokens / self.rewrite_tokens))

    @property
    def work(self) -> Work:
        """The amount of work in one phase."""
        instances = self.instances / self.phases
        prompts = instances * self.distinct_prompts
        rows = instances * self.paired
        pairs = rows * self.k * self.filled
        packed = rows * self.row_prompt_tokens + 2 * pairs * (self.pair_tokens - 1)
        steps = max(1, ceil(pairs / self.pairs_per_step))
        return Work(
            prompts * self.prompt_tokens,
            prompts * self.num_generations * self.rewrite_tokens,
            instances * (self.num_generations * self.new_texts + self.identity),
            packed,
            steps,
        )


@dataclass(frozen=True)
class PlannedStep:
    """A step of the loop over the whole cycle.

    Attributes:
        name: One of `STEPS`.
        seconds: Wall time.
        share: Of the cycle's wall time.
        cost: Price of the machines for that time; None without a price.
        amount: How much of what `unit` names is done.
        unit: In words.
    """

    name: str
    seconds: float
    share: float
    cost: float | None
    amount: float
    unit: str


@dataclass(frozen=True)
class Plan:
    """What a cycle takes.

    Attributes:
        steps: By step of the loop.
        seconds: Wall time in all.
        gpus: GPUs; None: the machine that was measured, as it is.
        device_hours: Hours of one GPU (or of the machine).
        cost: Their price; None without one.
        bottleneck: The step that takes longest.
        syncs: Transfers of weights to the samplers.
        bytes_synced: Bytes of them, over all samplers.
        optimizer_steps: Optimizer steps.
        bytes_synced_every_step: What a loop would transfer that synced after every optimizer step, for comparison.
        optimizer_bytes: Memory of the optimizer's state, on every device.
        checkpoint_bytes: Size of a checkpoint.
        machine: Where the rates were measured.
        workload: Of the cycle.
        assumptions: What the plan takes for granted.
    """

    steps: tuple[PlannedStep, ...]
    seconds: float
    gpus: int | None
    device_hours: float
    cost: float | None
    bottleneck: str
    syncs: int
    bytes_synced: int
    optimizer_steps: int
    bytes_synced_every_step: int
    optimizer_bytes: int
    checkpoint_bytes: int
    machine: str
    workload: Workload
    assumptions: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Wall time, hours."""
        return self.seconds / 3600

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "hours": self.hours}


def build_workload(run: MeasuredRun) -> Workload:
    """The workload of a measured run: its size, and means over its phases."""
    phases, config = run.phases, run.config
    if not phases:
        raise PlanError(f"{run.source}: no finished phase to take a workload from: let the run finish one phase at least")
    n = {
        name: sum(getattr(p, name) for p in phases)
        for name in ("instances", "prompts", "prompt_tokens", "sampled_tokens", "candidates", "rows", "pairs", "packed_tokens")
    }
    pair_tokens = sum(p.pair_tokens * p.pairs for p in phases) / n["pairs"]
    return Workload(
        instances=config.phases * round(n["instances"] / len(phases)),
        phases=config.phases,
        num_generations=config.num_generations,
        k=config.k,
        prompt_tokens=n["prompt_tokens"] / n["prompts"],
        rewrite_tokens=n["sampled_tokens"] / (n["prompts"] * config.num_generations),
        distinct_prompts=n["prompts"] / n["instances"],
        new_texts=max(0.0, n["candidates"] / n["instances"] - config.identity) / config.num_generations,
        paired=n["rows"] / n["instances"],
        filled=n["pairs"] / (n["rows"] * config.k),
        row_prompt_tokens=(n["packed_tokens"] - 2 * n["pairs"] * (pair_tokens - 1)) / n["rows"],
        pair_tokens=pair_tokens,
        identity=config.identity,
        pairs_per_step=config.pairs_per_step,
        synced_bytes=phases[0].sync_bytes,
        sync_ref_model=config.sync_ref_model,
        workers=config.scoring.workers,
    )


def plan(
    rates: Rates,
    workload: Workload,
    *,
    gpus: int | None = None,
    price_per_hour: float | None = None,
    speedup: float | None = None,
) -> Plan:
    """What a cycle takes.

    Args:
        rates: Measured.
        workload: The cycle.
        gpus: GPUs that share the work; None: the machine that was measured, as it is.
        price_per_hour: Of one GPU (or of the machine), in any currency.
        speedup: How many times faster than the measured device the planned one is at sampling, reference and gradient pass.

    Raises:
        PlanError: the reward's cost is not known, GPUs are planned from rates of a processor without a `speedup`, or a number
            is out of range.
    """
    for name, value in {"gpus": gpus, "price_per_hour": price_per_hour, "speedup": speedup}.items():
        if value is not None and not value > 0:
            raise PlanError(f"{name} must be above 0, not {value}")
    refuse_unmeasured(rates.machine, rates.device, rewarded=rates.scored is not None, gpus=gpus, speedup=speedup)
    work, devices = workload.work, gpus or 1
    faster = devices * (speedup or 1.0)
    each = rates.seconds(work)
    each |= {name: each[name] / faster for name in _OVER_GPUS}
    each["score"] *= rates.workers / workload.workers
    total = workload.phases * sum(each.values())
    price = None if price_per_hour is None else price_per_hour * devices / 3600
    steps = tuple(
        PlannedStep(
            name,
            workload.phases * each[name],
            workload.phases * each[name] / total if total else 0.0,
            None if price is None else workload.phases * each[name] * price,
            *_amount(name, work, workload),
        )
        for name in STEPS
    )
    optimizer_steps = workload.phases * int(work.optimizer_steps)
    sync_bytes = workload.synced_bytes * devices
    return Plan(
        steps=steps,
        seconds=total,
        gpus=gpus,
        device_hours=total * devices / 3600,
        cost=None if price is None else total * price,
        bottleneck=max(steps, key=lambda step: step.seconds).name,
        syncs=workload.phases,
        bytes_synced=workload.phases * sync_bytes,
        optimizer_steps=optimizer_steps,
        bytes_synced_every_step=optimizer_steps * sync_bytes,
        optimizer_bytes=2 * workload.synced_bytes,
        checkpoint_bytes=(4 if workload.sync_ref_model else 3) * workload.synced_bytes,
        machine=rates.machine,
        workload=workload,
        assumptions=_assumptions(rates, workload, gpus, speedup),
    )


def refuse_unmeasured(machine: str, device: str, *, rewarded: bool, gpus: int | None, speedup: float | None) -> None:
    """Raise where a plan needs rates that this machine cannot give, before anything is measured.

    Args:
        machine, device: Of the rates.
        rewarded: Whether the reward's cost is known.
        gpus, speedup: As `plan` takes them.

    Raises:
        PlanError: see `plan`.
    """
    if gpus and device == _PROCESSOR and speedup is None:
        raise PlanError(
            f"rates of a processor ({machine}) say nothing about {gpus} GPUs: measure on such a GPU, or say how many times "
            "faster one is than this processor (--speedup), which the plan will repeat"
        )
    if not rewarded:
        raise PlanError(
            "what the reward costs is not measured: give its seconds for one rewrite (--seconds-per-reward, 0 leaves it out), "
            "or take rates from a run with your own reward"
        )


def _amount(step: str, work: Work, workload: Workload) -> tuple[float, str]:
    """How much a step does in the cycle, and of what."""
    each = {
        "sync": (1.0, "syncs"),
        "sample": (work.sampled_tokens, "tokens sampled"),
        "score": (work.scored, "rewrites scored"),
        "reference": (work.packed_tokens, "packed tokens"),
        "learn": (work.optimizer_steps, "optimizer steps"),
        "observe": (1.0, "looks at held-out searches"),
    }
    amount, unit = each[step]
    return workload.phases * amount, unit


def _assumptions(rates: Rates, workload: Workload, gpus: int | None, speedup: float | None) -> tuple[str, ...]:
    found = [
        *rates.notes,
        f"rates were measured on {rates.machine}, in one process; another machine or model has others",
        "time grows in proportion to the work: no step gets slower or faster with the size of a phase",
        f"samples are as alike as the measured ones ({workload.new_texts:.0%} of them new texts), whatever their number: equal "
        "prompts are sampled once and equal beginnings advanced once",
        f"{workload.paired:.0%} of the instances give pairs, {workload.filled * workload.k:.2g} each on average",
        "prompts are about as long as the measured ones: attention over much longer ones costs more a token",
        "steps follow one another (overlap is off), and every instance is used once",
        "reading the log, the relevance model, the warm start and the gate are not in the plan",
    ]
    if speedup is not None:
        found.insert(0, f"sampling, reference and gradient pass are {speedup:g} times as fast as measured: given, not measured")
    if gpus:
        found.append(
            f"sampling, reference and gradient pass share out evenly over {gpus} GPUs (data parallel); sync, reward and "
            "observing take as long as on one, while all are paid for"
        )
    if workload.workers != rates.workers:
        found.append(f"the reward is {workload.workers / rates.workers:g} times as fast with {workload.workers} workers")
    return tuple(found)
