"""Stylised facts of a simulated week, compared with those published of real logs."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from corewrite.domain import words
from corewrite.simulation.intents import ndcg10
from corewrite.simulation.week import Week
from corewrite.simulation.world import NONE, World


@dataclass(frozen=True)
class Fact:
    """One stylised fact.

    Attributes:
        name: What is measured.
        value: Its value in the simulated week.
        low, high: Range held by a test.
    """

    name: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the value lies in its range."""
        return self.low <= self.value <= self.high


def stylised_facts(
    world: World, before: Week, week: Week, outcomes: dict[str, str] | None = None, oracle_gain: float | None = None
) -> list[Fact]:
    """Facts of `week`, new queries counted against `before`.

    Args:
        world: The platform.
        before: The week before.
        week: The week described.
        outcomes: Outcome by query id as the log reader finds it; None: what users felt.
        oracle_gain: Relative gain in nDCG@10 of the fused ranking by the rewrite of a mind reader; None: left out.
    """
    texts = [q.text for q in week.queries]
    sessions = Counter(week.session_ids)
    per_session = np.array(list(sessions.values()))
    counts = np.sort(np.array(list(Counter(texts).values())))[::-1].astype(float)
    ranks = np.arange(1, len(counts) + 1)
    head = counts >= 3
    slope = -np.polyfit(np.log(ranks[head]), np.log(counts[head]), 1)[0]
    known = {q.text for q in before.queries}
    needs = np.array([t.needs_context for t in week.typed])
    misspelt = np.array([t.misspelt for t in week.typed])
    ambiguous = np.array([t.ambiguous for t in week.typed])
    has_context = np.array([bool(q.context.titles or q.context.queries) for q in week.queries])
    clicks = week.click.sum()
    ratio = week.watch_seconds / world.catalogue.seconds[np.maximum(week.ranking.rows, 0)]
    short = (week.click & (ratio < 0.4)).sum() / clicks
    looked = np.array([(week.examined > k).mean() for k in (0, 9)])
    facts = [
        Fact("query length, words", float(np.mean([len(words(t)) for t in texts])), 2.0, 3.5),
        Fact("queries a session", float(per_session.mean()), 1.7, 3.0),
        Fact("single-query sessions", float((per_session == 1).mean()), 0.40, 0.60),
        Fact("Zipf slope of queries", float(slope), 0.7, 1.1),
        Fact("volume unseen last week", float(np.mean([t not in known for t in texts])), 0.15, 0.30),
        Fact("misspelt", float(misspelt.mean()), 0.08, 0.15),
        Fact("context needed", float(needs.mean()), 0.20, 0.30),
        Fact("context misleading or irrelevant", float((has_context & ~week.told).mean()), 0.40, 0.60),
        Fact("clear queries", float((~needs & ~misspelt & ~ambiguous).mean()), 0.50, 1.0),
        Fact("examination of rank 10 over rank 1", float(looked[1] / looked[0]), 0.15, 0.35),
        Fact("short clicks", float(short), 0.25, 0.40),
        Fact("exploratory searches", float((week.intents.entity == NONE).mean()), 0.05, 0.25),
        Fact("nDCG@10 as displayed", float(ndcg10(world, week.intents, week.ranking.rows).mean()), 0.58, 0.68),
    ]
    if outcomes is None:
        failed = ~week.felt
        facts.append(Fact("searches without felt satisfaction", float(failed.mean()), 0.30, 0.45))
    else:
        found = [o for q in week.query_ids if (o := outcomes.get(q, "censored")) != "censored"]
        facts.append(Fact("searches without satisfaction", float(np.mean([o != "satisfied" for o in found])), 0.30, 0.45))
        changed = float(np.mean([o == "changed_unsatisfied" for o in found]))
        facts.append(Fact("unsatisfied change-query rate", changed, 0.12, 0.25))
    if oracle_gain is not None:
        facts.append(Fact("oracle rewrite's fused gain", oracle_gain, 0.10, 0.40))
    return facts
