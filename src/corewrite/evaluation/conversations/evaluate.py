"""One measurement of rewriters on conversations, from turns to figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from corewrite.deployment.served import served_rewrites
from corewrite.domain import sha256_json
from corewrite.domain.steps import Steps
from corewrite.evaluation.conversations.estimates import RESAMPLES
from corewrite.evaluation.conversations.fused import DEFAULT_STAGE
from corewrite.evaluation.conversations.measure import ScoredTurns, collect_ranks, score_turns
from corewrite.evaluation.conversations.ranker import PassageRanker
from corewrite.evaluation.conversations.records import ConversationSet
from corewrite.evaluation.conversations.summary import ConversationFigures, summarise
from corewrite.evaluation.conversations.systems import HUMAN, Rewrites, baseline_rewrites
from corewrite.fusion import StageSpec
from corewrite.rewriter import Rewriter
from corewrite.version import VERSION

FORMAT = 1
"""Of `conversations.json`."""


@dataclass(frozen=True, eq=False)
class ConversationReport:
    """What a measurement found.

    Attributes:
        figures: Rows and shares.
        rewrites: What each system put in the place of each turn's query.
        data: The turns.
        rankers: What ranked; the first one's shares are the main ones.
        stage: How signals were fused.
        seed: Of the bootstrap.
        policy_hashes: Of each policy measured, by its system's name.
        notes: What was not measured, and why.
    """

    figures: ConversationFigures
    rewrites: Mapping[str, Rewrites]
    data: ConversationSet
    rankers: Sequence[PassageRanker]
    stage: StageSpec
    seed: int
    policy_hashes: Mapping[str, str]
    notes: Sequence[str]

    @property
    def texts(self) -> dict[str, list[str]]:
        """The text of every turn by each system: its rewrite, or where there is none the query."""
        return {
            name: [r or t.query for t, r in zip(self.data.turns, said, strict=True)] for name, said in self.rewrites.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """As plain data: what `conversations.json` holds."""
        shares = self.figures.main_shares(self.rankers[0].name)
        return {
            "format": FORMAT,
            "version": VERSION,
            "seed": self.seed,
            "resamples": RESAMPLES,
            "turns": len(self.data.turns),
            "conversations": len({t.conversation for t in self.data.turns}),
            "passages": len(self.data.passages),
            "passed_over": self.data.passed_over,
            "unknown_earlier_passages": self.data.unknown_earlier,
            "without_human_rewrite": sum(t.human_rewrite is None for t in self.data.turns),
            "data_hash": sha256_json([[asdict(t) for t in self.data.turns], [asdict(p) for p in self.data.passages]]),
            "systems": list(self.rewrites),
            "policies": dict(self.policy_hashes),
            "notes": list(self.notes),
            "rankers": [{"name": r.name, "calibration": asdict(r.calibration)} for r in self.rankers],
            "fusion": self.stage.model_dump(mode="json"),
            **{name: None if share is None else asdict(share) for name, share in shares.items()},
            "rows": [asdict(row) for row in self.figures.rows],
            "shares": [asdict(row) for row in self.figures.shares],
        }


def evaluate_conversations(
    data: ConversationSet,
    rankers: Sequence[PassageRanker],
    policies: Mapping[str, Rewriter],
    *,
    max_new_tokens: int,
    notes: Sequence[str] = (),
    stage: StageSpec = DEFAULT_STAGE,
    seed: int = 0,
    steps: Steps,
    observe: Callable[[ScoredTurns], None] = lambda scored: None,
) -> ConversationReport:
    """Measure baselines, policies and the human's rewrites.

    Args:
        data: The turns.
        rankers: By which; the first one also finds the words of RM3.
        policies: By their systems' names; they are asked as they are served, greedily.
        max_new_tokens: Length limit of a policy's rewrite, tokens.
        notes: What is not measured, and why.
        stage: How a turn's own signal and its rewrite's are fused.
        seed: Of the bootstrap.
        steps: Shows progress.
        observe: Shown the scores of all candidates, as they are worked out.
    """
    with steps.step("baselines"):
        rewrites = baseline_rewrites(data, rankers[0])
        human = rewrites.pop(HUMAN)
    for name, policy in policies.items():
        with steps.step(f"rewrites of {name}") as progress:
            rewrites[name] = served_rewrites(policy, data.queries, max_new_tokens=max_new_tokens, progress=progress)
    rewrites[HUMAN] = human
    with steps.step("rank") as progress:
        ranks = collect_ranks(data, score_turns(data, rewrites, rankers, stage, progress), observe)
    with steps.step("resample conversations"):
        figures = summarise(data, ranks, seed=seed)
    hashes = {name: policy.policy_hash for name, policy in policies.items()}
    return ConversationReport(figures, rewrites, data, rankers, stage, seed, hashes, notes)
