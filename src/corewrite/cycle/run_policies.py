"""The policies of a run that are compared outside of the gate: its warm start and its champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corewrite.cycle.kept_start import NoWarmStartError, load_warm_start
from corewrite.deployment.load import load_policy
from corewrite.evaluation.conversations.systems import CHAMPION, WARM_START
from corewrite.registry import Registry
from corewrite.rewriter import Rewriter, load_rewriter


class NoPolicyError(RuntimeError):
    """A run that has neither a warm start nor a champion."""


@dataclass(frozen=True, eq=False)
class RunPolicies:
    """What can be measured.

    Attributes:
        policies: By the names of their systems.
        missing: Why there is no warm start, or no champion.
    """

    policies: Mapping[str, Rewriter]
    missing: Sequence[str]


def load_run_policies(run: Path, registry: Registry, warm_start: Path | None = None) -> RunPolicies:
    """Load them; artifacts are checked against their hashes first.

    Args:
        run: The run folder.
        registry: Its registry.
        warm_start: Folder of the warm start; None: what the run keeps.

    Raises:
        NoPolicyError: there is none.
        RegistryError, RewriterError, JournalError: one is damaged.
    """
    found: dict[str, Rewriter] = {}
    missing = list[str]()
    try:
        found[WARM_START] = load_warm_start(run) if warm_start is None else load_rewriter(warm_start)
    except NoWarmStartError as error:
        missing.append(str(error))
    if (champion := registry.champion()) is not None:
        found[CHAMPION] = load_policy(registry, champion.policy)
    else:
        last = registry.decisions()[-1:]
        why = f" (the last decision was {last[0].verdict}: {last[0].reason})" if last else ""
        missing.append(f"{run} has no champion: nothing was promoted yet{why}")
    if not found:
        raise NoPolicyError("; ".join(missing))
    return RunPolicies(found, missing)
