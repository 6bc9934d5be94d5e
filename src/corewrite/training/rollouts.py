"""The first half of a phase: sync the policy to the sampler, sample, score."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from time import perf_counter

from corewrite.domain import TrainingInstance, normalise
from corewrite.rewriter import Completion, Rewrite, Rewriter, as_rewrite, distinct_prompts
from corewrite.training import parallel
from corewrite.training.candidates import Scored, distinct_candidates, score_candidates
from corewrite.training.config import TrainingConfig
from corewrite.training.samplers.in_process import InProcessEngine
from corewrite.training.samplers.mismatch import SamplerMismatchError, largest_mismatch
from corewrite.training.samplers.protocol import SamplingEngine, Sync
from corewrite.training.scoring import Key, Reward
from corewrite.training.scoring_beside import ScoringBeside

Progress = Callable[[str, int, int], None]
"""Takes (what, done, total)."""
_PROBES = 4
"""Prompts, and samples of each, whose log-probabilities are compared after a sync."""
_PROBED = 64
"""Instances whose distinct prompts they are taken from."""


class SamplerPrecisionWarning(UserWarning):
    """Weights that bfloat16 rounds too far: the phase is sampled in float32, which takes longer."""


@dataclass(frozen=True)
class VerifiedSync:
    """A sync whose samples have the trainer's log-probabilities.

    Attributes:
        sync: What the engine now holds.
        mismatch: Largest difference between the engine's log-probabilities and the trainer's, nats per token.
    """

    sync: Sync
    mismatch: float


@dataclass(frozen=True, eq=False)
class PhaseSamples:
    """A phase's samples, before scoring.

    Attributes:
        sync: Of the policy that sampled them.
        batch: Instances whose query fits a prompt.
        lost: Why, by the id of the other instances of the phase.
        place: Number of each instance's prompt.
        completions: N samples of each prompt.
        rewrites: What they say.
        facts: Figures for the phase's record.
        beside: Has scored a part of them while the rest was sampled; None: nothing is scored yet.
        ended: Reading of `perf_counter` when sampling ended.
    """

    sync: Sync
    batch: list[TrainingInstance]
    lost: dict[str, str]
    place: list[int]
    completions: list[list[Completion]]
    rewrites: list[list[Rewrite]]
    facts: dict[str, float]
    beside: ScoringBeside | None
    ended: float


def _silent(what: str, done: int, total: int) -> None: ...


@dataclass(eq=False)
class Rollouts:
    """Samples and scores the phases' instances.

    Attributes:
        engine: What samples.
        policy: What is trained; looked at when it is synced, and for its prompts.
        reward: log R of texts.
        config: Settings.
        seed: The one seed.
        progress: Called with (what, done, total).
        known: Scores of earlier phases, so that an instance that comes again costs its new rewrites only.
    """

    engine: SamplingEngine
    policy: Rewriter
    reward: Reward
    config: TrainingConfig
    seed: int
    progress: Progress = _silent
    known: dict[Key, float] = field(default_factory=dict)

    def sync(self, batch: Sequence[TrainingInstance], phase: int) -> VerifiedSync:
        """Hand the policy to the engine, once per phase, and compare log-probabilities on a few prompts of the batch.

        Warns:
            SamplerPrecisionWarning: bfloat16, which was only the default, rounds too far: this phase is sampled in float32.

        Raises:
            SamplerMismatchError: they differ by more than the engine's rounding.
        """
        fitting = [x for x in batch if not self.policy.template.too_long(x.query)]
        prompts, _, keys = build_prompts(self.policy, fitting[:_PROBED])
        sync = self.engine.sync(self.policy)
        mismatch, limit = self._mismatch(prompts, keys, sync, phase), self.engine.log_prob_mismatch_limit
        # The in-process engine has compared the weights: what is left is rounding.
        if limit < mismatch and isinstance(self.engine, InProcessEngine) and (again := self.engine.sync_precisely(self.policy)):
            text = f"phase {phase} is sampled in float32: in bfloat16 log-probabilities are off by {mismatch:.2g} nats a token"
            warnings.warn(f"{text}, more than {limit:g}", SamplerPrecisionWarning, stacklevel=2)
            sync, mismatch = again, self._mismatch(prompts, keys, again, phase)
        if not mismatch <= (limit := self.engine.log_prob_mismatch_limit):
            raise SamplerMismatchError(
                f"right after the sync of phase {phase} the sampler's log-probabilities are off by {mismatch:.2g} nats a "
                f"token, more than the {limit:g} that rounding explains: the engine samples from other weights, another "
                "tokenizer, or with a temperature or filter"
            )
        return VerifiedSync(sync, mismatch)

    def _mismatch(self, prompts: Sequence[Sequence[int]], keys: Sequence[int], sync: Sync, phase: int) -> float:
        shown = prompts[:_PROBES]
        if not shown:  # no query of the phase fits a prompt: nothing will be sampled
            return 0.0
        found = self.engine.sample(
            shown,
            _PROBES,
            expected=sync.version,
            keys=keys[:_PROBES],
            seed=self.seed,
            phase=phase,
            max_new_tokens=self.config.max_new_tokens,
        )
        return largest_mismatch(self.policy, shown, found)

    def sample(self, batch: Sequence[TrainingInstance], synced: VerifiedSync, phase: int) -> PhaseSamples:
        """N samples of every prompt of the batch from the synced policy; instances with too long a query are lost.

        A reward that waits for a server is called with the first samples while the rest is drawn (`ScoringBeside`).

        Raises:
            StalePolicyError: the engine does not hold the synced policy any more.
        """
        clock, sync = perf_counter(), synced.sync
        lost = {x.instance_id: why for x in batch if (why := self.policy.template.too_long(x.query))}
        batch = [x for x in batch if x.instance_id not in lost]
        truncated = self.policy.template.truncated
        prompts, place, keys = build_prompts(self.policy, batch)
        truncated = self.policy.template.truncated - truncated
        beside: ScoringBeside | None = None
        if parallel.world() == 1 and getattr(self.reward, "waits", False):
            beside = ScoringBeside(batch, place, prompts, self.policy, self.reward, self.config, sync.version, self.known)
        try:
            completions = parallel.gather(
                self.engine.sample(
                    parallel.share(prompts),
                    self.config.num_generations,
                    expected=sync.version,
                    keys=parallel.share(keys),
                    seed=self.seed,
                    phase=phase,
                    max_new_tokens=self.config.max_new_tokens,
                    progress=lambda done, total: self.progress("sample", done, total),
                    **({"ready": beside.ready} if beside else {}),
                )
            )
        except BaseException:
            if beside is not None:
                beside.close()
            raise
        rewrites = [[as_rewrite(self.policy, c) for c in row] for row in completions]
        ended = perf_counter()
        every = [r for i in place for r in rewrites[i]]
        facts = {
            "rollouts": len(every),
            "malformed": sum(r.malformed for r in every),
            "not_ended": sum(not r.ended for r in every),
            # Monte-Carlo estimate of the sampling distribution's entropy.
            "entropy_per_token": -sum(r.log_prob for r in every) / max(1, sum(len(r.token_ids) for r in every)),
            "prompts": len(prompts),
            "prompt_tokens": sum(map(len, prompts)),
            "sampled_tokens": sum(len(c.token_ids) for row in completions for c in row),
            "prompts_truncated": truncated,
            "log_prob_mismatch": synced.mismatch,
            "sync_bytes": sync.bytes,
            "sample_seconds": round(ended - clock, 3),
        }
        return PhaseSamples(sync, batch, lost, place, completions, rewrites, facts, beside, ended)

    def score(self, samples: PhaseSamples) -> Scored:
        """Deduplicate by cleaned text, add the identity, and compute log R; in several processes the first one does.

        Raises:
            Whatever the reward raises, see `score_texts`.
        """
        batch = samples.batch

        def progress(done: int, total: int) -> None:
            self.progress("score", done, total)

        if samples.beside is not None:
            found, busy = samples.beside.finish(samples.completions, progress)
            seconds = {"score_seconds": round(perf_counter() - samples.ended, 3), "score_busy_seconds": round(busy, 3)}
            in_order = {x.instance_id: found.candidates[x.instance_id] for x in batch if x.instance_id in found.candidates}
            return Scored(
                samples.sync.policy_hash, in_order, samples.lost | found.lost, samples.facts | found.sampled | seconds
            )
        candidates = [
            distinct_candidates(x, samples.rewrites[i], self.policy, identity=self.config.identity)
            for x, i in zip(batch, samples.place, strict=True)
        ]
        scored = None
        if parallel.rank() == 0:
            scored = score_candidates(
                batch,
                candidates,
                self.reward,
                self.config.scoring,
                version=samples.sync.policy_hash,
                known=self.known,
                sampled=samples.facts,
                progress=progress,
            )
            scored.lost.update(samples.lost)
            scored.sampled["score_seconds"] = round(perf_counter() - samples.ended, 3)
        return parallel.from_first(scored)  # type: ignore[return-value]

    def remember(self, batch: Sequence[TrainingInstance], scored: Scored) -> None:
        """Keep a phase's scores for the instances that come again."""
        query = {x.instance_id: normalise(x.query.text) for x in batch}
        for instance, row in scored.candidates.items():
            self.known |= {(instance, c.text or query[instance]): c.log_reward for c in row}


def build_prompts(policy: Rewriter, batch: Sequence[TrainingInstance]) -> tuple[list[tuple[int, ...]], list[int], list[int]]:
    """Prompts of a batch, equal ones once; the place of each instance's among them; and the key of each prompt's draws.

    The key is the prompt itself: instances that ask the same are sampled once, whatever batch they meet in.
    """
    prompts, place = distinct_prompts(policy, [x.query for x in batch])
    keys = [int.from_bytes(sha256(repr(prompt).encode()).digest()[:8], "big") for prompt in prompts]
    return prompts, place, keys
