"""The candidates of the gate benchmark: harmful, better, equal and broken ones."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch

from corewrite.gate import GateResult, Verdict
from corewrite.registry import Registry, RegistryError
from corewrite.rewriter import RewriterError, load_rewriter
from corewrite.studies.gate_benchmark.change import Change
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.gate_benchmark.env import BenchmarkEnv
from corewrite.studies.gate_benchmark.families import DRIFT, FAMILIES, Family, rewritten
from corewrite.studies.gate_benchmark.outputs import CaseOutput, Where
from corewrite.studies.gate_benchmark.remember import Rewrites
from corewrite.studies.gate_benchmark.trainings import (
    CHAMPION,
    SOUND,
    WARM,
    RankerVariant,
    Training,
    build_trainings,
    champion_training_name,
)

_RECENT = 8
_EQUAL = Change(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Case(ABC):
    """One row of the benchmark.

    Attributes:
        family: Of the candidate.
        strength: In words.
        seed: Of the platform.
    """

    family: str
    strength: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.family}/{self.seed}-{''.join(c if c.isalnum() or c in '.+' else '-' for c in self.strength)}"

    def run(self, env: BenchmarkEnv) -> dict[str, Any]:
        """The row: truth, judge, verdict, and the checks that stood in the way."""
        truth, judge, result = self._found(env)
        return {
            "family": self.family,
            "strength": self.strength,
            "seed": self.seed,
            "true_ndcg_change": truth.change,
            "true_low": truth.low,
            "true_high": truth.high,
            "judge_change": judge.change,
            "verdict": result.verdict.value,
            "caught_by": ", ".join(caught_by(result)),
            "reason": result.reason,
        }

    @abstractmethod
    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        """Truth, the judge's change, the gate's result."""


def caught_by(result: GateResult) -> list[str]:
    """Checks that failed; where none did, those that kept the candidate from being promoted; none of a promoted one."""
    if result.verdict is Verdict.PROMOTE:
        return []
    deciding = [c for c in result.checks if c.kind in ("reward", "guardrail", "hard")]
    return list(result.failed) or [c.name for c in deciding if c.verdict not in ("pass", "skipped")] or ["users"]


@dataclass(frozen=True)
class RewrittenCase(Case):
    """A rewriting of what the champion serves.

    Attributes:
        rewriting: Its family.
        amount: Its strength.
        behind_gain: Compared with the warm start rather than the champion.
    """

    rewriting: Family
    amount: float
    behind_gain: bool

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        base = WARM if self.behind_gain else env.champion
        champion = env.of_policy(SOUND, base)
        candidate = replace(env.served(SOUND, self._texts(env, "gate")), canaries=self._texts(env, "canaries"))
        result, judge = env.gate(SOUND, candidate, champion)
        return env.true_change(SOUND, self._texts(env, "truth"), env.rewrites(base, "truth")), judge, result

    def _texts(self, env: BenchmarkEnv, where: Where) -> Rewrites:
        return rewritten(
            self.rewriting, self.amount, env.corpus, self.seed, env.queries(where), env.rewrites(env.champion, where)
        )


@dataclass(frozen=True)
class Trained(Case):
    """A policy that was really trained, compared with another under what it was trained on.

    Attributes:
        training: Its training.
        phase: After which.
        over: Name of the policy compared with.
    """

    training: str
    phase: int
    over: str

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        training = env.trainings[self.training]
        candidate, under = training.policy(self.phase), training.under
        champion = env.of_policy(under, self.over)
        result, judge = env.gate(under, env.of_policy(under, candidate), champion, start=training.start)
        truth = env.true_change(under, env.rewrites(candidate, "truth"), env.rewrites(self.over, "truth"))
        return truth, judge, result


@dataclass(frozen=True)
class TrainedWeeks(Case):
    """Weeks of training on a bad reward, each week's policy over the last one's: the first verdict that is no promote.

    Attributes:
        training: Of all weeks.
        phases: At the end of each week.
    """

    training: str
    phases: tuple[int, ...]

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        training = env.trainings[self.training]
        names = [training.start, *map(training.policy, self.phases)]
        under = training.under
        result, judge = _weeks(env, under, len(names) - 1, lambda k: env.of_policy(under, names[k]), names)
        return env.true_change(under, env.rewrites(names[-1], "truth"), env.rewrites(names[0], "truth")), judge, result


@dataclass(frozen=True)
class DriftingWeeks(Case):
    """Weeks of the champion's own training, from the warm start, with a share of drifted rewrites that grows week by week.

    Attributes:
        weeks: How many.
        amount: By how much the share grows each week.
    """

    weeks: int
    amount: float

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        result, judge = _weeks(env, SOUND, self.weeks, lambda k: env.served(SOUND, self._texts(env, k, "gate")))
        first, last = (self._texts(env, k, "truth") for k in (0, self.weeks))
        return env.true_change(SOUND, last, first), judge, result

    def _texts(self, env: BenchmarkEnv, week: int, where: Where) -> Rewrites:
        phases = env.config.platform.pipeline.training.phases
        # The last weeks must be those of the whole training: the policy's own gain is spread over all.
        phase = round(week * phases / self.weeks)
        rewrites = env.rewrites(f"{CHAMPION}-{phase:02d}" if phase else WARM, where)
        share = min(1.0, self.amount * week)
        if not share:
            return rewrites
        return rewritten(DRIFT, share, env.corpus, self.seed, env.queries(where), rewrites)


def _weeks(
    env: BenchmarkEnv, under: RankerVariant, weeks: int, served: Callable[[int], CaseOutput], policies: Sequence[str] = ()
) -> tuple[GateResult, Change]:
    """Week by week until one is not promoted; the bar of slow decay is the best of the last 8 champions but the present one.

    Of trained `policies`, each week's training began from the one before.
    """
    champions = [served(0)]
    for week in range(1, weeks + 1):
        candidate = served(week)
        start = policies[week - 1] if policies else None
        result, judge = env.gate(under, candidate, champions[-1], recent=champions[-1 - _RECENT : -1], start=start)
        if result.verdict is not Verdict.PROMOTE:
            break
        champions.append(candidate)
    return result, judge


@dataclass(frozen=True)
class SameWeights(Case):
    """The champion's own weights on both sides, sampled with different seeds, on a random half of the gate's users.

    That nothing changes in truth is known, not measured.

    Attributes:
        number: Of the comparison.
        of: How many there are.
    """

    number: int
    of: int

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        drawn = env.sampled(2 * self.of)
        champion, candidate = (env.served(SOUND, drawn[2 * self.number + k]) for k in (0, 1))
        result, judge = env.gate(SOUND, candidate, champion, users_of=f"aa-{self.seed}-{self.number}")
        return _EQUAL, judge, result


Damage = Literal["nan-weights", "truncated-file", "flipped-byte", "missing-tokenizer"]


@dataclass(frozen=True)
class Broken(Case):
    """The champion's files, damaged; on the way that a candidate out of the registry takes, or one given as a folder.

    Attributes:
        damage: What is done to them.
        from_registry: Whether the registry is asked, which knows the hashes.
    """

    damage: Damage
    from_registry: bool

    def _found(self, env: BenchmarkEnv) -> tuple[Change, Change, GateResult]:
        champion = replace(env.of_policy(SOUND, env.champion), policy=None)  # broken weights have no likelihoods
        room = env.folder / "broken"
        shutil.rmtree(room, ignore_errors=True)
        problems = self._problems(env, room)
        shutil.rmtree(room)
        result, judge = env.gate(
            SOUND, CaseOutput(champion.rewrites, champion.rows, champion.log_reward), champion, problems=problems
        )
        return _EQUAL, judge, result

    def _problems(self, env: BenchmarkEnv, room: Path) -> list[str]:
        """What is found wrong on the way to the gate."""
        policy = env.policy(env.champion).copy()
        if self.damage == "nan-weights":
            with torch.no_grad():
                next(iter(policy.model.parameters())).view(-1)[0] = float("nan")
        registry = Registry(room / "registry")
        saved = registry.save("policy", policy.save, {})
        folder = registry.path(saved)
        if self.damage != "nan-weights":
            damage(folder, self.damage)
        try:
            if self.from_registry:
                registry.verify("policy", saved.hash)
            loaded = load_rewriter(folder)
        except (RegistryError, RewriterError, OSError) as error:
            return [str(error).replace(str(room), "")]
        finite = all(bool(torch.isfinite(p).all()) for p in loaded.model.parameters())
        return [] if finite else ["a weight of the candidate is not a finite number"]


def damage(folder: Path, kind: Damage) -> None:
    """Damage a rewriter's folder.

    Raises:
        ValueError: not that way.
    """
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if kind == "truncated-file":
        weights.write_bytes(content[: 2 * len(content) // 3])
    elif kind == "flipped-byte":
        place = 2 * len(content) // 3
        weights.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif kind == "missing-tokenizer":
        (folder / "tokenizer.json").unlink()
    else:
        raise ValueError(f"{kind!r} is no damage to files")


def cases(config: GateBenchConfig, seed: int) -> list[Case]:
    """All rows of a seed, the cheap ones first; those of one training stand together."""
    champion = champion_training_name(config)
    found: list[Case] = []
    for kind in ("nan-weights", "truncated-file", "flipped-byte", "missing-tokenizer"):
        for registered in (True, False):
            if registered or kind != "flipped-byte":  # a folder without a hash cannot tell
                way = "out of the registry" if registered else "from a folder"
                found.append(Broken(f"integrity-{kind}", way, seed, kind, registered))
    for family in FAMILIES.values():
        strengths = family.strengths()
        # Fewer than there are: the strong ones.
        found += [RewrittenCase(family.name, text, seed, family, a, b) for a, b, text in strengths[-config.amounts :]]
    found += [
        DriftingWeeks(DRIFT.name, text, seed, config.drift_weeks, a) for a, _, text in DRIFT.strengths()[-config.amounts :]
    ]
    draws = range(config.aa_rows)
    found += [SameWeights("aa", f"half of the users, draw {k}", seed, k, config.aa_rows) for k in draws]
    found += _honest(config, seed)
    for training in build_trainings(config, seed).values():
        kind = training.name.partition("-")[0]
        if kind == "growing":
            found += [_trained(training, p, champion, seed) for p in config.growing_phases]
            week = config.growing_week
            for p in config.growing_phases:
                what = f"{training.name.partition('-')[2]} as eps, {p // week} weeks of {week} phases"
                found.append(TrainedWeeks("trained-drift", what, seed, training.name, tuple(range(week, p + 1, week))))
        elif kind in ("saturating", "poisoned"):
            found += [_trained(training, p, champion, seed) for p in training.keep]
    return found


def _trained(training: Training, phase: int, champion: str, seed: int) -> Trained:
    kind, _, how = training.name.partition("-")
    units = {"growing": "as eps", "saturating": "more bias", "poisoned": "of the instances a bot's"}
    return Trained(f"trained-{kind}", f"{how} {units[kind]}, {phase} phases", seed, training.name, phase, champion)


def _honest(config: GateBenchConfig, seed: int) -> list[Case]:
    """Phases over the warm start, later ones over earlier ones, the last over the first of the next training."""
    found: list[Case] = []
    phases = config.honest_phases
    for k in range(config.honest_trainings):
        name, other = f"honest-{k}", f"honest-{(k + 1) % config.honest_trainings}"
        found += [Trained("honest-warm", f"{name}, phase {p}", seed, name, p, WARM) for p in phases]
        pairs = [(name, "its", before, after) for before, after in combinations(phases, 2)]
        for start, what, before, after in (*pairs, (other, f"{other}'s", phases[0], phases[-1])):
            over = f"{start}-{before:02d}"
            found.append(Trained("honest-later", f"{name}, phase {after} over {what} phase {before}", seed, name, after, over))
    return found
