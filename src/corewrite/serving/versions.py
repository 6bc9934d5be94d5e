"""What is served: the champion of the registry, followed while requests go on.

Ordering contract: a new champion is loaded and has answered a probe before any request sees it; then one assignment makes
it the present version. A request takes `present` once, at its start, and uses nothing else: no answer mixes two. The
champion before stays loaded, so that a rollback is that one assignment again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from corewrite.domain import Catalogue
from corewrite.fusion import FusionSpec, load_spec
from corewrite.registry import Champion, Kind, Registry
from corewrite.relevance import DenseScorer, LateInteraction
from corewrite.search import Cascade, embedded_cascade
from corewrite.serving.rewriting import PolicyRewriter
from corewrite.serving.settings import STAGES_OF, Arm, ServeConfig

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
        cascades: The cascade of each arm.
        rewriter: Its policy.
    """

    champion: Champion
    spec: FusionSpec
    cascades: Mapping[Arm, Cascade]
    rewriter: PolicyRewriter

    @cached_property
    def spec_hash(self) -> str:
        """Hash of `spec`, made once: it stands in every line of the log."""
        return self.spec.spec_hash


class Versions:
    """The present champion and the one before.

    Attributes:
        present: What new requests are answered with; None before the first champion.
        problem: Why the registry's champion is not the present one, empty where it is.
        switches: Changes of the present version.
    """

    def __init__(self, config: ServeConfig, catalogue: Catalogue, make_rewriter: Open) -> None:
        self._registry = Registry(config.registry)
        self._catalogue, self._make, self._poll_seconds = catalogue, make_rewriter, config.poll_seconds
        self._previous: Version | None = None
        self._retry: tuple[int, float] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.present: Version | None = None
        self.problem = ""
        self.switches = 0

    async def follow(self) -> None:
        """Look at the registry for ever; a trouble with it leaves the present version in place."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_seconds)

    async def refresh(self) -> None:
        """Bring `present` to the registry's champion, if that can be loaded."""
        try:
            champion = await asyncio.to_thread(self._registry.champion)
            if champion is None:
                self.problem = f"{self._registry.root} has no champion: promote a candidate first"
            elif self.present is None or champion.version != self.present.champion.version:
                if self._retry is not None and self._retry[0] == champion.version and time.monotonic() < self._retry[1]:
                    return
                await self._switch(champion)
        except Exception as error:
            # A damaged artifact, a full disk, a model that does not load: the version in place goes on serving.
            self.problem = f"{type(error).__name__}: {error}"
            self._retry = (champion.version, time.monotonic() + _RETRY_SECONDS) if champion is not None else None
            _log.error("the registry's champion cannot be served: %s", self.problem)
        else:
            if champion is not None:
                self.problem = ""

    async def close(self) -> None:
        """End the rewriters' processes."""
        for task in self._leaving:
            task.cancel()
        rewriters = {v.rewriter for v in (self.present, self._previous) if v is not None}
        await asyncio.gather(*self._leaving, *(r.close() for r in rewriters), return_exceptions=True)

    async def _switch(self, champion: Champion) -> None:
        old, kept = self.present, [v for v in (self.present, self._previous) if v is not None]
        new = await self._load(champion, kept)
        self.present, self._previous = new, old
        self.switches += 1
        if old is not None and old.champion.hashes == new.champion.hashes:
            self._previous = next((v for v in kept[1:]), None)  # the same triple under a new number
        staying = {v.rewriter for v in (self.present, self._previous) if v is not None}
        for version in kept:
            if version.rewriter not in staying:
                task = asyncio.create_task(_close_later(version.rewriter))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def _load(self, champion: Champion, kept: list[Version]) -> Version:
        same = next((v for v in kept if v.champion.hashes == champion.hashes), None)
        if same is not None:
            return Version(champion, same.spec, same.cascades, same.rewriter)
        spec, cascades = await asyncio.to_thread(self._ranking, champion, kept)
        rewriter = next((v.rewriter for v in kept if v.champion.policy == champion.policy), None)
        if rewriter is None:
            folder = await asyncio.to_thread(self._folder, "policy", champion.policy)
            rewriter = self._make(champion.policy, folder)
            await rewriter.open()
        return Version(champion, spec, cascades, rewriter)

    def _ranking(self, champion: Champion, kept: list[Version]) -> tuple[FusionSpec, dict[Arm, Cascade]]:
        spec = load_spec(self._folder("spec", champion.spec) / "fusion.yaml")
        same = next((v for v in kept if v.champion.relevance == champion.relevance), None)
        if same is not None:
            cascade = same.cascades["launch_2"].with_spec(spec)
        else:
            model = LateInteraction.load(self._folder("relevance", champion.relevance))
            cascade = embedded_cascade(self._catalogue, DenseScorer(model.bind(self._catalogue)), spec)
        return spec, {arm: cascade.with_spec(spec.with_rewrite_stages(stages)) for arm, stages in STAGES_OF.items()}

    def _folder(self, kind: Kind, hash: str) -> Path:
        self._registry.verify(kind, hash)
        return self._registry.path(self._registry.artifact(kind, hash))


async def _close_later(rewriter: PolicyRewriter) -> None:
    """Requests that began under it are answered first."""
    try:
        await asyncio.sleep(_GRACE_SECONDS)
    finally:
        await rewriter.close()
