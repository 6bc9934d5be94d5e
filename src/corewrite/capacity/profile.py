"""Measured phases: of a run's folder, or of a short training made to measure."""

import json
import random
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from corewrite.capacity.rates import MeasuredRun, Phase, PlanError
from corewrite.domain import Context, Query, TrainingInstance
from corewrite.rewriter import Rewriter, new_small_decoder
from corewrite.storage.json_file import read_object
from corewrite.storage.run_layout import RunLayout
from corewrite.training.checkpoint import RunFolder
from corewrite.training.config import TrainingConfig
from corewrite.training.loop import train

_SEED = 0
_PHASES = 3
_LARGEST, _SMALLEST = 256, 8  # instances of a calibrating phase
_EFFORT = {"cpu": 2e11, "cuda": 2e13}  # parameters times tokens of one: seconds of a small processor, or of a GPU
_WORDS = 4_000
_LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def read_run(folder: Path) -> MeasuredRun:
    """The phases of a training run's folder, as its records, scored candidates and checkpoint tell.

    The first phase, which warms up, is left out where there are more. What sync and checkpoint take is the time between the
    files of one phase and the next that no record accounts for.

    Args:
        folder: The run's, the one with run.json; or one that holds it as `training`.

    Raises:
        FileNotFoundError: there is no run, or none of its phases has ended.
        PlanError: the run had overlapping phases, or is of a version whose records lack what a plan needs.
    """
    root = folder if (folder / "run.json").is_file() else RunLayout(folder).training
    if not (root / "run.json").is_file():
        raise FileNotFoundError(f"{folder} holds no training run (run.json): name the folder that training wrote")
    config = TrainingConfig.model_validate(read_object(root / "run.json", PlanError, "measure a new run")["config"])
    if config.overlap:
        raise PlanError(f"{root}: phases that overlap (overlap: true) slow each other down: measure a run without")
    records = RunFolder(root, {}, writes=False).records()
    if not records or not (root / "state.safetensors").is_file():
        raise FileNotFoundError(f"{root} holds no finished phase: wait for one")
    gaps = [_between(root, records, number) for number in range(len(records))]
    new = _newly_scored(root, len(records))
    try:
        # As plain dictionaries: what an older version did not write is no damage.
        phases = [_phase(dict(r), scored, gap) for r, scored, gap in zip(records, new, gaps, strict=True)]
    except KeyError as error:
        raise PlanError(f"{root}: its records lack {error}, an older version wrote them: measure a new run") from error
    except TypeError as error:
        raise PlanError(f"{root}: a record is damaged ({error}): measure a new run") from error
    notes = () if len(phases) > 1 else (f"{root} has one phase only: its warm-up is in the rates",)
    machine, device = _machine(root / "state.safetensors")
    return MeasuredRun(str(root), machine, device, config, tuple(phases[1:] or phases), notes)


def calibrate(
    policy: Rewriter,
    *,
    prompt_tokens: int,
    rewrite_tokens: int,
    samples: int,
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[MeasuredRun]:
    """Two short trainings of a copy of `policy` on made-up instances: with the samples wanted, and with another number of them.

    Searches and reward are made up: the reward costs nothing, and every instance gives a pair. A policy that has not learnt to
    end its rewrites samples the longest it may, none like another, so that sampling is at its dearest.

    Args:
        policy: What would be trained, or one of its size.
        prompt_tokens: Length of the prompts.
        rewrite_tokens: Length limit of a sampled rewrite, end-of-sequence included; at least 2.
        samples: N.
        k: Pairs per instance at most.
        progress: Called with (phases done, of how many).

    Raises:
        PlanError: the policy's template has no room for such prompts, or there is less than 2 of something.
    """
    if rewrite_tokens < 2 or samples < 2:
        raise PlanError(f"a calibration needs rewrites of 2 tokens and 2 samples at least, not {rewrite_tokens} and {samples}")
    device, tokens = next(policy.model.parameters()).device.type, prompt_tokens + samples * rewrite_tokens
    n = max(_SMALLEST, min(_LARGEST, int(_EFFORT[device] / policy.parameters / tokens)))
    instances = synthetic_instances(policy, n * _PHASES, prompt_tokens, rewrite_tokens)
    runs: list[MeasuredRun] = []
    for other in (samples, samples // 4 if samples >= 8 else 4 * samples):
        config = TrainingConfig(
            phases=_PHASES, instances_per_phase=n, num_generations=other, k=k, max_new_tokens=rewrite_tokens
        )
        done = len(runs) * _PHASES

        def observe(phase: int, policy: Rewriter, done: int = done) -> dict[str, float]:
            progress(done + phase + 1, 2 * _PHASES)
            return {}

        with tempfile.TemporaryDirectory() as folder:
            train(
                policy.copy(),
                instances,
                _own_query_first,
                config,
                Path(folder),
                seed=_SEED,
                provenance={"instances": "synthetic"},
                observe=observe,
            )
            found = read_run(Path(folder))
        runs.append(_as_calibration(found, n))
    return runs


def synthetic_decoder() -> Rewriter:
    """A small decoder with random weights, its tokenizer made for `synthetic_instances`."""
    draw = random.Random(_SEED)
    words = _pool()
    return new_small_decoder([" ".join(draw.choices(words, k=8)) for _ in range(4 * _WORDS)], seed=_SEED)


def synthetic_instances(policy: Rewriter, n: int, prompt_tokens: int, rewrite_tokens: int) -> list[TrainingInstance]:
    """Instances with distinct made-up searches: queries about as long as a rewrite, prompts about as long as wanted.

    Raises:
        PlanError: the policy's template has no room for such prompts.
    """
    limits = policy.template.config
    draw, words = random.Random(_SEED), _pool()

    def text(tokens: int) -> str:
        """Words of so many tokens, filled up with single letters."""
        chosen: list[str] = []
        for pool in (words, _LETTERS):
            while len(policy.template.encode_text(" ".join(grown := [*chosen, draw.choice(pool)]))) <= tokens:
                chosen = grown
        return " ".join(chosen)

    frame = limits.max_tokens - policy.template.room
    one = Context(titles=("b",)) if limits.titles else Context(queries=("b",))
    plain, more = (len(policy.template.encode(q)) for q in (Query("a"), Query("a", one)))
    head = max(1, more - plain - len(policy.template.encode_text("b")))  # tokens before a part of the context

    def query() -> Query:
        own = text(max(1, min(rewrite_tokens - 1, prompt_tokens - frame)))
        parts: list[str] = []
        left = prompt_tokens - len(policy.template.encode(Query(own)))
        while left > head and len(parts) < limits.titles + limits.queries:
            parts.append(text(min(left - head, limits.part_tokens)))
            left -= head + len(policy.template.encode_text(parts[-1]))
        return Query(own, Context(queries=tuple(parts[limits.titles :]), titles=tuple(parts[: limits.titles])))

    queries = [query() for _ in range(n)]
    found = mean(len(policy.template.encode(q)) for q in queries)
    if not 0.9 < found / prompt_tokens < 1.1:
        raise PlanError(
            f"the model's prompt template holds up to {limits.max_tokens} tokens and made prompts of {found:.0f}, not "
            f"{prompt_tokens}: plan for another length, or give a model whose prompt_template.json allows it"
        )
    return [TrainingInstance(f"made-up-{i}", f"u{i}", q, ("a",), (1.0,), ("b",), (1.0,)) for i, q in enumerate(queries)]


def _pool() -> list[str]:
    draw = random.Random(_SEED)
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    return sorted({"".join(draw.choices(syllables, k=3)) for _ in range(_WORDS)})


def _own_query_first(instances: Sequence[TrainingInstance], texts: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
    """The query itself earns most, half of all rewrites earn something: there is a pair whatever the policy writes."""
    return [
        np.array([1.0 if t == x.query.text else 0.5 if zlib.crc32(t.encode()) % 2 else -1.0 for t in row])
        for x, row in zip(instances, texts, strict=True)
    ]


def _as_calibration(run: MeasuredRun, n: int) -> MeasuredRun:
    """The run under the name of a calibration, without the seconds of its made-up reward."""
    notes = (
        f"calibrated on phases of {n} made-up instances with default settings: an untaught model's samples are as long and as "
        "unlike as can be, and nearly every instance gives a pair, so a real run may take less",
        "the reward's cost was given, not measured; nothing is observed between phases",
    )
    phases = tuple(
        replace(p, seconds={name: value for name, value in p.seconds.items() if name != "score"}) for p in run.phases
    )
    return replace(run, source="calibration", phases=phases, notes=notes)


def _phase(record: Mapping[str, Any], scored: int, between: float | None) -> Phase:
    pair_tokens = (record["mean_chosen_tokens"] + record["mean_rejected_tokens"]) / 2
    rows = record["instances"] - record["instances_without_pair"] - len(record["instances_lost"])
    seconds = {**record["seconds"], **({} if between is None else {"sync": between})}
    return Phase(
        record["instances"],
        record["prompts"],
        record["rollouts"],
        record["prompt_tokens"],
        record["sampled_tokens"],
        record["distinct_candidates"],
        scored,
        rows,
        record["pairs"],
        pair_tokens,
        record["packed_tokens"],
        record["optimizer_steps"],
        record["sync_bytes"],
        seconds,
    )


def _newly_scored(root: Path, phases: int) -> list[int]:
    """Candidates of each phase that no earlier one had scored: an instance that comes again costs its new rewrites only."""
    known: set[tuple[str, str]] = set()
    found = []
    for phase in range(phases):
        table = pq.read_table(root / f"phases/{phase:03d}/candidates.parquet", columns=["instance_id", "text"])
        keys = set(zip(*(table[name].to_pylist() for name in ("instance_id", "text")), strict=True))
        found.append(len(keys - known))
        known |= keys
    return found


def _between(root: Path, records: Sequence[Mapping[str, Any]], phase: int) -> float | None:
    """Seconds of a phase's sync and of the checkpoint before it; None for the first, or where file times make no sense."""
    if phase == 0:
        return None
    began = (root / f"phases/{phase - 1:03d}/record.json").stat().st_mtime
    ended = (root / f"phases/{phase:03d}/candidates.parquet").stat().st_mtime
    seconds = records[phase]["seconds"]
    left = ended - began - seconds["sample"] - seconds["score"]
    return left if left > 0 else None


def _machine(checkpoint: Path) -> tuple[str, str]:
    """Machine and device of a checkpoint: "cpu" or the GPU's name."""
    try:
        with safe_open(checkpoint, "pt") as opened:
            about = json.loads((opened.metadata() or {})["corewrite"])["environment"]
        device, processor = str(about["device"]), f"{about['processor']}, {about['threads']} threads"
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise PlanError(f"{checkpoint} is damaged ({str(error)[:200]}): measure a new run") from error
    return (processor if device == "cpu" else f"{device} ({processor})"), device
