"""A training as the cycle does it: an adapter where the settings want one, the sampler they name, one progress bar."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from corewrite.cycle.candidate_config import PipelineConfig, PluginSampling
from corewrite.domain import TrainingInstance
from corewrite.domain.filters import load_filters
from corewrite.domain.plugins import SAMPLERS, load_plugin
from corewrite.rewriter import Rewriter, merged, with_adapter
from corewrite.training import PhaseObserver, Reward, SamplingEngine, TrainingReport, parallel, tracked, tracker_openers, train


def run_training(
    start: Rewriter,
    instances: Sequence[TrainingInstance],
    reward: Reward,
    config: PipelineConfig,
    folder: Path,
    *,
    seed: int,
    adapter_seed: int | None = None,
    provenance: dict[str, str | int],
    protected_words: frozenset[str] | None = None,
    observe: PhaseObserver = lambda phase, policy: {},
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Rewriter, TrainingReport]:
    """Train a copy of a policy, or go on with a training that was killed.

    Args:
        start: What it begins from; not changed.
        instances: What the reward is of.
        reward: Of rewrites.
        config: Settings: training, sampler, filters, trackers.
        folder: For the phases.
        seed: Of the training.
        adapter_seed: Of the adapter's first weights, where the settings want an adapter; None: that of the training.
        provenance: Written into every phase.
        protected_words: Not to be dropped by what is learnt, see `train`.
        observe: More to note of the policy after each phase.
        progress: Called with (done, total) over all phases.

    Returns:
        The trained policy, an adapter merged into it, and the report of the phases.
    """
    policy = to_train(start, config, seed if adapter_seed is None else adapter_seed)
    show, after_phase = training_progress(progress, config.training.phases, observe)
    names = config.trackers if parallel.rank() == 0 else ()
    with open_sampler(config, policy) as engine, tracked(folder, tracker_openers(names, folder, provenance)):
        report = train(
            policy,
            instances,
            reward,
            config.training,
            folder,
            seed=seed,
            provenance=provenance,
            engine=engine,
            protected_words=protected_words,
            filters=load_filters(config.filters),
            observe=after_phase,
            progress=show,
        )
    return merged(policy), report


def to_train(warm: Rewriter, config: PipelineConfig, seed: int) -> Rewriter:
    """A copy of the warm start, with an adapter where the settings want one."""
    if (lora := config.training.lora) is None:
        return warm.copy()
    return with_adapter(warm, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=seed)


@contextmanager
def open_sampler(config: PipelineConfig, policy: Rewriter) -> Iterator[SamplingEngine | None]:
    """What samples by the settings; None, which is this process, where they name nothing."""
    if (server := config.server) is None:
        yield None
        return
    if isinstance(server, PluginSampling):
        with load_plugin(SAMPLERS, server.kind)(policy, **server.options) as own:
            yield own
        return
    from corewrite.training.samplers.server import ServerEngine

    eos = policy.tokenizer.eos_token_id
    engine = ServerEngine(
        server.url, server.model_folder, server.reload, eos, log_prob_mismatch_limit=server.log_prob_mismatch_limit
    )
    try:
        yield engine
    finally:
        engine.close()


def training_progress(
    progress: Callable[[int, int], None], phases: int, observe: PhaseObserver = lambda phase, policy: {}
) -> tuple[Callable[[str, int, int], None], PhaseObserver]:
    """What `train` reports, as one bar over all phases, and its observer, which moves the bar on."""
    place = {"sample": 0.0, "score": 0.3, "reference": 0.45, "learn": 0.5}
    share = {"sample": 0.3, "score": 0.15, "reference": 0.05, "learn": 0.5}
    done = [0]

    def show(what: str, part: int, total: int) -> None:
        progress(int(1000 * (done[0] + place[what] + share[what] * part / max(1, total))), 1000 * phases)

    def after_phase(phase: int, policy: Rewriter) -> dict[str, float]:
        done[0] = phase + 1
        return observe(phase, policy)

    return show, after_phase
