"""The policy that a run's trainings began from: kept by a training, found by what measures."""

from pathlib import Path

from corewrite.cycle.records import START_POLICY, open_journals
from corewrite.rewriter import Rewriter, RewriterError, load_rewriter
from corewrite.storage.durable import PARTIAL, make_folder, move_folder, naming, remove_tree, sync, sync_tree
from corewrite.storage.run_layout import RunLayout


class NoWarmStartError(RuntimeError):
    """A run folder that does not hold what its training began from."""


def keep_start(policy: Rewriter, folder: Path) -> None:
    """Write the policy that a training begins from, whole or not at all, over one that is there."""
    make_folder(folder.parent)
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    if partial.exists():
        remove_tree(partial)
    with naming(folder):
        policy.save(partial)
        sync_tree(partial)
        if folder.exists():
            remove_tree(folder)
        move_folder(partial, folder)
        sync(folder.parent)


def load_warm_start(run: Path) -> Rewriter:
    """The warm start of a run: what `corewrite train` began from, or the first cycle that began from no champion.

    Raises:
        NoWarmStartError: the run keeps none.
        RewriterError: it cannot be loaded, or is not what the cycle wrote down.
        JournalError: the cycle's record is damaged.
    """
    if (own := RunLayout(run).start).is_dir():
        return load_rewriter(own)
    for journal in open_journals(run):
        record, kept = journal.read(START_POLICY), RunLayout(run).cycle(journal.week).start
        if record is None or "kinds" not in record:  # a week that began from a champion
            continue
        if not kept.is_dir():
            continue
        policy = load_rewriter(kept)
        if policy.policy_hash != record.get("policy_hash"):
            raise RewriterError(
                f"{kept} holds policy {policy.policy_hash[:12]}, the cycle wrote down {str(record.get('policy_hash'))[:12]}: "
                "it was changed since; name the warm start with --warm-start"
            )
        return policy
    raise NoWarmStartError(
        f"{run} keeps no warm start: earlier versions of `corewrite train` wrote none; name its folder with --warm-start, or "
        "train again"
    )
