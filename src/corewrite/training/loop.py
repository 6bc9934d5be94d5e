"""Semi-online Mixed Preference Optimization (MPO loss: arXiv 2411.10442; semi-online: arXiv 2506.21495): the phase loop.

Compared with on-policy RL (PPO, GRPO) it leaves out the value model, advantages, importance weights and a sync per step: a
phase samples once from frozen weights, and only the best and worst few of the N samples are ever back-propagated through.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from corewrite.domain import TrainingInstance, sha256_json
from corewrite.domain.filters import NO_FILTERS, RewriteFilters
from corewrite.rewriter import Rewriter
from corewrite.training import parallel
from corewrite.training.checkpoint import RunFolder, begun_identity
from corewrite.training.config import TrainingConfig, first_names
from corewrite.training.gradient_pass import resolved_precision
from corewrite.training.learner import Learner
from corewrite.training.phase import Background, Batches, Selection, check_inputs, select_rows
from corewrite.training.report import PhaseClock, TrainingReport, build_report, phase_record
from corewrite.training.rollouts import Progress, Rollouts, VerifiedSync
from corewrite.training.samplers.in_process import InProcessEngine
from corewrite.training.samplers.protocol import SamplingEngine
from corewrite.training.scoring import Reward
from corewrite.training.stopping import reward_plateaued
from corewrite.training.threads import with_threads

_SELECTION = 2
"""Version of the rules of selection, in the identity of a run: a run of another version is not the same run."""


class PhaseObserver(Protocol):
    """Looks at the policy after each phase, for the record only: nothing it returns reaches the training."""

    def __call__(self, phase: int, policy: Rewriter) -> dict[str, float]:
        """Measures by name."""
        ...


def train(
    policy: Rewriter,
    instances: Sequence[TrainingInstance],
    reward: Reward,
    config: TrainingConfig,
    folder: Path,
    *,
    seed: int,
    provenance: dict[str, Any],
    engine: SamplingEngine | None = None,
    protected_words: frozenset[str] | None = None,
    filters: RewriteFilters = NO_FILTERS,
    observe: PhaseObserver = lambda phase, policy: {},
    progress: Progress = lambda what, done, total: None,
) -> TrainingReport:
    """Train `policy` in place; a killed run continues where it was, to the same weights.

    Args:
        policy: Where to start: the warm start or the champion. It is also the reference.
        instances: Training instances; each phase takes the next ones of one random order.
        reward: log R of texts.
        config: Settings.
        folder: Run folder.
        seed: The one seed.
        provenance: What the reward and the data are (hashes, window); a run resumes only under the same.
        engine: What samples; default: a copy of the policy in this process.
        protected_words: A rewrite that drops one of these, or a number, counts as the worst of its instance; None: nothing is
            protected.
        filters: A rewrite that one of them stops counts as the worst of its instance, and is never chosen.
        observe: Called after each phase.
        progress: Called with (what, done, total).

    Raises:
        ValueError: no instance, one that is kept for the gate, two of one id, phases that overlap in several processes, no pair
            in a phase, or a reward or loss that is not a number.
        ResumeError: the folder holds another run.
        SamplerMismatchError: the engine samples from another distribution than the policy's.
        CheckpointError: a file could not be written.
        FilterError: a filter that is not ours failed.
    """
    check_inputs(instances, config)
    # A run begun by an earlier version goes on as it began, to the bits it would have had.
    begun = parallel.from_first(begun_identity(folder))
    earlier = begun is not None and "selection" not in begun
    if begun is not None and "patience" not in begun.get("config", {}):
        config = config.model_copy(update={"patience": 0})
    protected = None if earlier else protected_words
    selection = Selection(shorter_first=not earlier, protected_words=protected, filters=filters)
    identity = _identity(policy, instances, config, seed, provenance, selection)
    run = RunFolder(folder, identity, writes=parallel.rank() == 0)
    with with_threads(parallel.from_first(run.threads)):
        learner = Learner.resume(policy, config, run)
        engine = engine or InProcessEngine(policy, config.sampler_precision)
        rollouts = Rollouts(engine, policy, reward, config, seed, progress)
        try:
            _run_phases(learner, rollouts, Batches(instances, config, seed), run, selection, observe, progress)
        finally:
            learner.finish_checkpoint()
        return build_report(parallel.from_first(run.records()))


def _run_phases(
    learner: Learner,
    rollouts: Rollouts,
    batches: Batches,
    run: RunFolder,
    selection: Selection,
    observe: PhaseObserver,
    progress: Progress,
) -> None:
    policy, config, beside = learner.policy, learner.config, Background()

    def sample_and_score(phase: int, synced: VerifiedSync) -> None:
        samples = rollouts.sample(batches[phase], synced, phase)
        scored = rollouts.score(samples)
        run.write_scored(phase, scored)  # persisted before selection: from here on the record is the truth

    if batches.repeat:
        for phase in range(learner.phase):
            if (before := run.scored(phase)) is not None:
                rollouts.remember(batches[phase], before)

    for phase in range(learner.phase, config.phases):
        rewards = [r["mean_sampled_log_reward"] for r in parallel.from_first(run.records())[:phase]]
        if reward_plateaued(rewards, config.patience):
            break
        batch = batches[phase]
        # Sync once, sample N, score, persist; unless that was done before a kill, or beside the phase before.
        beside.wait()
        if (scored := parallel.from_first(run.scored(phase))) is None:
            sample_and_score(phase, rollouts.sync(batch, phase))
            scored = parallel.from_first(run.scored(phase))  # trained on is what a resumed run would read
            assert scored is not None
        if batches.repeat:
            rollouts.remember(batch, scored)
        clock = PhaseClock()
        # Select the best and the worst k.
        rows = select_rows(policy, batch, scored, config, selection, phase=phase)
        # Begun with this phase's prompts built: the template counts the truncated ones of one phase at a time.
        ahead: VerifiedSync | None = None
        if config.overlap and phase + 1 < config.phases and run.scored(phase + 1) is None:
            ahead = rollouts.sync(batches[phase + 1], phase + 1)
            beside.start(sample_and_score, phase + 1, ahead)
        # Optimise.
        steps = learner.plan(rows, rollouts.seed)
        learner.sync_reference()
        reference = learner.reference_log_probs(rows, steps, progress)
        clock.lap("reference")
        learner.finish_checkpoint()  # what is learnt from here on rests on it, and changes what it is written from
        clock.lap("checkpoint")
        if ahead is not None:
            ahead.sync.policy_hash  # noqa: B018  # hashed before the weights move
        learner.optimise(rows, steps, reference, run, progress)
        clock.lap("learn")
        observed = observe(phase, policy)
        clock.lap("observe")
        # Record and checkpoint.
        beside.wait()
        run.write_record(phase, phase_record(phase, batch, scored, rows, learner.cursor, observed, clock.seconds))
        learner.finish_phase()
        learner.sync_reference()  # done again where a run resumes; here so that nothing changes while it is written
        learner.begin_checkpoint(run)  # beside the next phase's sampling and reference


def _identity(
    policy: Rewriter,
    instances: Sequence[TrainingInstance],
    config: TrainingConfig,
    seed: int,
    provenance: dict[str, Any],
    selection: Selection,
) -> dict[str, Any]:
    known = selection.protected_words
    words = {} if known is None else {"protected_words": sha256_json(sorted(known))}
    # A run is known by what it computes in: `auto` was float32 before it had a name, and is on a processor.
    computed = config.model_copy(update={"precision": resolved_precision(config.precision, policy.model.device)})
    settings = first_names(computed.model_dump(mode="json"))
    if not config.patience:  # what earlier versions had and did not name
        del settings["patience"]
    return {
        "config": settings,
        "seed": seed,
        "start": policy.policy_hash,
        "instances": sha256_json([[x.instance_id, x.query.key, x.positives, x.negatives] for x in instances]),
        "provenance": provenance,
        **({"selection": _SELECTION, **words} if selection.shorter_first else {}),
        **({"filters": selection.filters.identity} if selection.filters.rules else {}),
    }
