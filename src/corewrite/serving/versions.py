"""What is served: the champion of the registry and, while its rollout is under way, the version that most clients keep.

Ordering contract: a new champion, and the version its rollout goes up from, are loaded and have answered a probe before any
request sees them; then one assignment puts them in place. A request takes its version once, at its start (`choose`), and
uses nothing else: no answer mixes two. The champion before stays loaded, so that a rollback is that one assignment again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from corewrite.deployment.deployment import Deployment
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.ranker import Ranker
from corewrite.domain.traffic_split import STAGES_OF, Arm, is_holdback_user
from corewrite.experiment import CONTROL, TREATMENT, RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import RolloutFileError, load_rollout
from corewrite.fusion import FusionSpec, load_spec
from corewrite.logs.served import RolloutPlace
from corewrite.registry import Champion, Kind, Registry, RegistryError
from corewrite.relevance.backends import CircuitBreaker
from corewrite.search import Cascade
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import ServeConfig

_log = logging.getLogger(__name__)
_RETRY_SECONDS, _GRACE_SECONDS = 5.0, 5.0
Open = Callable[[str, Path], PolicyRewriter]
"""Makes the rewriter, not opened yet, of a policy's hash and folder."""


@dataclass(frozen=True, eq=False)
class Version:
    """One champion, ready to answer.

    Attributes:
        champion: The triple and its version number.
        spec: Its fusion spec.
        ranker: What ranks.
        cascades: The cascade of each arm.
        rewriter: Its policy.
    """

    champion: Champion
    spec: FusionSpec
    ranker: Ranker
    cascades: Mapping[Arm, Cascade]
    rewriter: PolicyRewriter

    @cached_property
    def spec_hash(self) -> str:
        """Hash of `spec`, made once: it stands in every line of the log."""
        return self.spec.spec_hash

    @cached_property
    def stages(self) -> frozenset[str]:
        """The stages at which the spec uses a rewrite: nothing is gained by waiting for one at the others."""
        ranking = {name for name, stage in self.spec.stages.items() if stage.rewrite}
        recall = self.spec.recall.use_rewrite and self.spec.recall.rewrite_candidates > 0
        return frozenset(ranking | {"recall"} if recall else ranking)


@dataclass(frozen=True, eq=False)
class RoutingDecision:
    """What a request is answered with.

    Attributes:
        version: Answers it, all of it.
        rollout: Its place in the rollout; None where none is under way.
        shadow: In the shadow stage the champion, whose answers are computed and logged, not shown; else None.
        rollout_pair: For a client in an arm of the rollout, the version that it goes up from and the champion; else None.
    """

    version: Version
    rollout: RolloutPlace | None = None
    shadow: Version | None = None
    rollout_pair: tuple[Version, Version] | None = None


@dataclass(frozen=True, eq=False)
class _Served:
    """The registry's champion, the version before it, and the rollout from this to that where one is under way."""

    present: Version
    previous: Version | None
    rollout: tuple[RolloutState, RolloutConfig] | None


class Versions:
    """The present champion, the version before, and who gets which.

    Attributes:
        problem: Why the registry's champion or rollout is not followed; empty where it is.
        switches: Changes of the present version.
    """

    def __init__(self, config: ServeConfig, opener: RankerOpener, make_rewriter: Open) -> None:
        self._registry, self._rollout_file = Registry(config.registry), config.rollout_path
        self._opener, self._make, self._poll_seconds = opener, make_rewriter, config.poll_seconds
        self._holdback = config.arms.holdback
        self._served: _Served | None = None
        self._bare: Version | None = None
        self._rollout: tuple[RolloutState, RolloutConfig] | None = None
        self._rollout_read_at: int | None = None
        self._rollout_problem = ""
        self._retry: tuple[int, float] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.problem = ""
        self.switches = 0

    @property
    def present(self) -> Version | None:
        """The registry's champion as loaded; None before the first."""
        return None if self._served is None else self._served.present

    @property
    def rollout(self) -> RolloutPlace | None:
        """The rollout under way, as a request without a client id meets it; None where none is."""
        chosen = self.choose("")
        return None if chosen is None else chosen.rollout

    @property
    def breakers(self) -> tuple[CircuitBreaker, ...]:
        """Those before the models of the versions that are loaded."""
        found = {id(b): b for v in self._loaded() for b in v.ranker.breakers.values()}
        return tuple(found.values())

    @property
    def stuck_seconds(self) -> float:
        """How long ago a backend's oldest call began that was given up and still runs; 0 where there is none."""
        return self._opener.stuck_seconds

    @property
    def answering(self) -> tuple[Version, ...]:
        """The versions that clients get."""
        served = self._served
        if served is None:
            return ()
        if served.rollout is None or served.previous is None:
            return (served.present,)
        seen = served.rollout[0].share(served.rollout[1]) > 0
        return (served.previous, served.present) if seen else (served.previous,)

    def choose(self, client_id: str) -> RoutingDecision | None:
        """What a client is answered with; None before the first champion that can rank.

        Args:
            client_id: A hash of it and the rollout decides, so that every worker agrees; empty: the version before.

        Returns:
            Where the policy of the first champion cannot be loaded, a version whose rewriter does not work.
        """
        served = self._served
        if served is None:
            return None if self._bare is None else RoutingDecision(self._bare)
        if served.rollout is None or served.previous is None:
            return RoutingDecision(served.present)
        state, config = served.rollout
        takes_part = bool(client_id) and not is_holdback_user(client_id, self._holdback)
        treated = takes_part and state.version_for(client_id, config) == state.champion
        version, share = served.present if treated else served.previous, state.share(config)
        if not takes_part or state.status != "running":
            return RoutingDecision(version, RolloutPlace(arm=None, champion=state.champion, share=share))
        place = RolloutPlace(arm=TREATMENT if treated else CONTROL, champion=state.champion, share=share)
        shadow = served.present if share == 0 else None
        return RoutingDecision(version, place, shadow, (served.previous, served.present))

    async def follow(self) -> None:
        """Poll registry and rollout for ever; where they cannot be read, what is served stays."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_seconds)

    async def refresh(self) -> None:
        """Bring what is served to the registry's champion and its rollout, if they can be loaded."""
        champion: Champion | None = None
        try:
            champion = await asyncio.to_thread(self._registry.champion)
            if champion is None:
                self.problem = f"{self._registry.root} has no champion: promote a candidate first"
            elif self._retry is None or self._retry[0] != champion.version or time.monotonic() >= self._retry[1]:
                await self._bring(champion)
                self._retry, self.problem = None, self._rollout_problem
        except Exception as error:
            # A damaged artifact, a full disk, a model that does not load: what is in place goes on serving.
            self.problem = _describe(error)
            self._retry = (champion.version, time.monotonic() + _RETRY_SECONDS) if champion is not None else None
            _log.error("the registry's champion cannot be served: %s", self.problem)
            if champion is not None and self._served is None:
                await self._without_rewriter(champion)

    async def _without_rewriter(self, champion: Champion) -> None:
        """Where nothing is served yet: searches without rewrites, until the policy can be loaded, are better than none."""
        try:
            if await asyncio.to_thread(self._load_rollout, champion) is not None:
                self._bare = None  # not everybody is to get this champion's ranking
                return
            if self._bare is not None and self._bare.champion.version == champion.version:
                return
            spec, ranker, cascades = await asyncio.to_thread(self._ranking, champion, [])
        except Exception as error:
            _log.error("nor without its rewriter: %s", _describe(error))
            return
        # Never opened: it is not ready, and what is not in a cache has no rewrite.
        self._bare = Version(champion, spec, ranker, cascades, self._make(champion.policy, Path()))

    async def close(self) -> None:
        """End the rewriters' processes."""
        for task in self._leaving:
            task.cancel()
        rewriters = {v.rewriter for v in (*self._loaded(), *((self._bare,) if self._bare else ()))}
        await asyncio.gather(*self._leaving, *(r.close() for r in rewriters), return_exceptions=True)

    def _loaded(self) -> list[Version]:
        served = self._served
        return [] if served is None else [v for v in (served.present, served.previous) if v is not None]

    async def _bring(self, champion: Champion) -> None:
        old, kept = self._served, self._loaded()
        present = next((v for v in kept if v.champion.version == champion.version), None)
        present = present or await self._load(champion, kept)
        previous: Version | None
        try:
            # Not before the champion is loaded: a cycle writes the rollout just after it promotes.
            rollout = await asyncio.to_thread(self._load_rollout, champion)
            if rollout is not None:
                previous = await self._version(rollout[0].previous, [*kept, present])
            elif old is not None and old.present.champion.version != champion.version:
                # The same triple under a new number is no version before.
                previous = next((v for v in kept if v.champion.hashes != champion.hashes), None)
            else:
                previous = None if old is None else old.previous
        except BaseException:
            if present.rewriter not in {v.rewriter for v in kept}:
                await present.rewriter.close()
            raise
        self._served, self._bare = _Served(present, previous, rollout), None
        self.switches += old is None or old.present.champion.version != champion.version
        staying = {v.rewriter for v in self._loaded()}
        for rewriter in {v.rewriter for v in kept} - staying:
            task = asyncio.create_task(_close_later(rewriter))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _load_rollout(self, champion: Champion) -> tuple[RolloutState, RolloutConfig] | None:
        """The rollout that is under way for a champion; where it cannot be read, as it was last."""
        try:
            self._rollout, self._rollout_read_at, trouble = load_rollout(self._rollout_file), champion.version, ""
        except (OSError, RolloutFileError) as error:
            trouble = _describe(error)
        if trouble and trouble != self._rollout_problem:
            _log.error("the rollout cannot be read, clients keep what they have: %s", trouble)
        self._rollout_problem = trouble
        if trouble and self._rollout_read_at != champion.version and champion.fallback is not None:
            verdict = next(d.verdict for d in self._registry.decisions() if d.number == champion.version)
            if verdict == "promote":
                # Which clients are to get it is unknown: none do, until it is known. A rollback is for all.
                return RolloutState(champion.version, champion.fallback, 0.0, status="rolled back"), RolloutConfig()
        if self._rollout is None or self._rollout[0].champion != champion.version or self._rollout[0].status == "complete":
            return None
        return self._rollout

    async def _version(self, number: int, kept: list[Version]) -> Version:
        """A version of the past, by its number."""
        known = next((v for v in kept if v.champion.version == number), None)
        if known is not None:
            return known
        decisions = await asyncio.to_thread(self._registry.decisions)
        served = ("promote", "rollback")
        triple = next((d.candidate for d in decisions if d.number == number and d.verdict in served), None)
        if triple is None:
            raise RegistryError(
                f"the rollout in {self._rollout_file} goes up from version {number}, which the registry never served"
            )
        return await self._load(Champion(triple.policy, triple.relevance, triple.spec, version=number, fallback=None), kept)

    async def _load(self, champion: Champion, kept: list[Version]) -> Version:
        same = next((v for v in kept if v.champion.hashes == champion.hashes), None)
        if same is not None:
            return Version(champion, same.spec, same.ranker, same.cascades, same.rewriter)
        spec, ranker, cascades = await asyncio.to_thread(self._ranking, champion, kept)
        rewriter = next((v.rewriter for v in kept if v.champion.policy == champion.policy), None)
        if rewriter is None:
            folder = await asyncio.to_thread(self._folder, "policy", champion.policy)
            rewriter = self._make(champion.policy, folder)
            await rewriter.open()
        return Version(champion, spec, ranker, cascades, rewriter)

    def _ranking(self, champion: Champion, kept: list[Version]) -> tuple[FusionSpec, Ranker, dict[Arm, Cascade]]:
        spec = load_spec(self._folder("spec", champion.spec) / "fusion.yaml")
        same = next((v for v in kept if v.champion.relevance == champion.relevance), None)
        if same is not None:
            ranker, cascade = same.ranker, same.cascades["all_stages"].with_spec(spec)
        else:
            folder = self._folder("relevance", champion.relevance)
            metadata = self._registry.artifact("relevance", champion.relevance).metadata
            ranker = self._opener.open(champion.relevance, folder, metadata)
            cascade = Deployment(ranker, spec).cascade
        return spec, ranker, {arm: cascade.with_spec(spec.with_rewrite_stages(stages)) for arm, stages in STAGES_OF.items()}

    def _folder(self, kind: Kind, hash: str) -> Path:
        self._registry.verify(kind, hash)
        return self._registry.path(self._registry.artifact(kind, hash))


def _describe(error: Exception) -> str:
    """For an answer of `/readyz`, which half characters (of a file) would spoil."""
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()


async def _close_later(rewriter: PolicyRewriter) -> None:
    """Close a rewriter after the requests that began with it had time to end."""
    try:
        await asyncio.sleep(_GRACE_SECONDS)
    finally:
        await rewriter.close()
