"""The warm start: what to show the rewriter before it meets the reward."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from corewrite.cycle.candidate_config import WarmStartConfig
from corewrite.cycle.pairs_file import read_pairs
from corewrite.deployment.deployment import Deployment
from corewrite.domain import Documents, Query
from corewrite.domain.documents import sample_rows, text_column
from corewrite.logs import Reformulation
from corewrite.rewriter import (
    Example,
    FineTuneReport,
    Rewriter,
    context_word_dropout,
    expanded,
    fine_tune,
    folded_locale,
    load_rewriter,
    new_small_decoder,
    other_contexts,
    title_conditioned_dropout,
    typo_noise,
    usual_words,
)

T = TypeVar("T")
_SHARES = {
    "repaired": 0.13,
    "typo_noise": 0.40,
    "context_word_dropout": 0.08,
    "title_conditioned_dropout": 0.19,
    "good": 0.12,
    "other_context": 0.08,
}
"""Share of each kind among the examples, where the log has enough of it."""
_READ = 200_000
"""Documents whose words are learnt at most."""
_RESULTS = 10
"""First results whose words are looked at."""
_RECALLED = 50_000
"""Distinct texts that the engine is asked for at most; the others are not expanded."""
_BATCH = 500
"""Texts of one question to the engine."""


@dataclass(frozen=True)
class WarmStartReport:
    """A warm start.

    Attributes:
        kinds: Examples of each kind.
        fit: What fine-tuning did; None where there was none.
        parameters: Of the model.
    """

    kinds: dict[str, int]
    fit: FineTuneReport | None
    parameters: int


def warm_start(
    successful_reformulations: Sequence[Reformulation],
    satisfied_queries: Sequence[Reformulation],
    deployment: Deployment,
    config: WarmStartConfig,
    *,
    seed: int,
    model: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Rewriter, WarmStartReport]:
    """Fine-tune a rewriter on users' own repairs, restored noise, and good queries to be left alone or expanded; by
    `config.start` on the pairs of a file instead, or on nothing.

    Args:
        successful_reformulations: Queries that failed, with the later query of the chain that satisfied (seen twice).
        satisfied_queries: Queries that satisfied as they were.
        deployment: Recalls the results whose words targets are expanded by; its documents are for the tokenizer of a new
            decoder and for titles to leave words to, of many a sample (`_READ`).
        config: Settings.
        seed: The one seed.
        model: Path or name of a causal LM; None: a small decoder with random weights.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: nothing to learn from, or a prompt template for a small decoder.
        RewriterError: the model cannot be loaded, or not under the prompt template that the settings choose.
        OSError: the template's file cannot be read.
    """
    config.check(model)
    kept, queries = _shown(successful_reformulations, satisfied_queries, deployment, config, seed)
    examples = [example for rows in kept.values() for example in rows]
    home = home_locale(queries)
    if model is None:
        documents = deployment.documents
        said = [text for name in ("title", "text") for text in _texts(documents, name, seed)]
        texts = [*said, *(r.target for r in (*satisfied_queries, *successful_reformulations))]
        texts += [e.target for e in examples] if config.start == "pairs" else []
        rewriter, rate = new_small_decoder(texts, seed=seed, home_locale=home), config.learning_rate
    else:
        rewriter = load_rewriter(model, home_locale=home, template=config.template.load())
        rate = config.learning_rate_pretrained
    kinds = {k: len(v) for k, v in kept.items()}
    if config.start == "none":
        return rewriter, WarmStartReport(kinds, None, rewriter.parameters)
    if config.start == "pairs" and not rewriter.template.fitting([e.query for e in examples]):
        raise ValueError(f"{config.pairs}: no prompt of {rewriter.template.config.max_tokens} tokens holds any of its queries")
    report = fine_tune(rewriter, examples, epochs=config.epochs, seed=seed, learning_rate=rate, progress=progress)
    return rewriter, WarmStartReport(kinds, report, rewriter.parameters)


def _shown(
    successful_reformulations: Sequence[Reformulation],
    satisfied_queries: Sequence[Reformulation],
    deployment: Deployment,
    config: WarmStartConfig,
    seed: int,
) -> tuple[dict[str, list[Example]], list[Query]]:
    """Examples of each kind, and the queries that tell the home locale.

    Raises:
        ValueError: there are none.
    """
    queries = [r.query for r in (*successful_reformulations, *satisfied_queries)]
    if config.start == "none":
        return {}, queries
    if config.pairs is not None:
        pairs = _some(read_pairs(config.pairs), config.examples, np.random.default_rng([seed, 64]))
        return {"pairs": pairs}, [e.query for e in pairs]
    if not queries:
        raise ValueError("the warm start needs satisfied searches: the log has none")
    kept = _examples(successful_reformulations, satisfied_queries, deployment.documents, config.examples, seed)
    examples = _expanded([e for rows in kept.values() for e in rows], deployment, config.expanded_share, seed)
    ends = np.cumsum([len(rows) for rows in kept.values()]).tolist()
    return {name: examples[end - len(kept[name]) : end] for name, end in zip(kept, ends, strict=True)}, queries


def home_locale(queries: Sequence[Query]) -> str:
    """The locale of more than half of the queries, folded; empty where none is."""
    ((locale, n),) = Counter(folded_locale(q.context.locale) for q in queries).most_common(1) or [("", 0)]
    return locale if 2 * n > len(queries) else ""


def weekly_examples(
    successful_reformulations: Sequence[Reformulation],
    satisfied_queries: Sequence[Reformulation],
    deployment: Deployment,
    n: int,
    *,
    expanded_share: float,
    seed: int,
) -> list[Example]:
    """At most `n` examples of the same kinds, from one week: what is new since the champion was trained.

    Raises:
        ValueError: nothing to learn from.
    """
    examples = [
        example
        for rows in _examples(successful_reformulations, satisfied_queries, deployment.documents, n, seed).values()
        for example in rows
    ]
    if not examples:
        raise ValueError("the week's log has no satisfied search to learn from: bring a longer one, or set refresh.examples: 0")
    return _expanded(examples, deployment, expanded_share, seed)


def _expanded(examples: Sequence[Example], deployment: Deployment, share: float, seed: int) -> list[Example]:
    """Some of the examples with usual words of what the engine recalls for their target."""
    if not share or not examples:
        return list(examples)
    targets = sorted({e.target for e in examples})
    targets = [targets[i] for i in sample_rows(len(targets), _RECALLED, seed, 68)]
    batches = [targets[start : start + _BATCH] for start in range(0, len(targets), _BATCH)]
    recalled = [rows[:_RESULTS] for batch in batches for rows in deployment.cascade.recall(batch, _RESULTS)]
    distinct = np.unique(np.concatenate(recalled))
    columns = [c for c in ("title", "text") if c in deployment.documents.column_names]
    parts = [text_column(deployment.documents, name, distinct) for name in columns]
    text_of = dict(zip(distinct.tolist(), map(" ".join, zip(*parts, strict=True)), strict=True))
    usual = usual_words({t: [text_of[row] for row in rows.tolist()] for t, rows in zip(targets, recalled, strict=True)})
    return expanded(examples, usual, share=share, seed=seed)


def _examples(
    successful_reformulations: Sequence[Reformulation],
    satisfied_queries: Sequence[Reformulation],
    documents: Documents,
    n: int,
    seed: int,
) -> dict[str, list[Example]]:
    good_queries = [g.query for g in satisfied_queries]
    kinds = {
        "repaired": [Example(r.query, r.target) for r in successful_reformulations] * 2,
        "typo_noise": typo_noise(good_queries, seed=seed, copies=2),
        "context_word_dropout": context_word_dropout(good_queries),
        "title_conditioned_dropout": title_conditioned_dropout(good_queries, _texts(documents, "title", seed), seed=seed),
        "good": [Example(g.query, g.target) for g in satisfied_queries],
        "other_context": other_contexts(good_queries, seed=seed),
    }
    rng = np.random.default_rng([seed, 64])
    return {name: _some(rows, int(_SHARES[name] * n), rng) for name, rows in kinds.items()}


def _texts(documents: Documents, name: str, seed: int) -> list[str]:
    """A column of all documents, or of a sample of `_READ` of them; nothing where there is no such column."""
    if name not in documents.column_names:
        return []
    return text_column(documents, name, sample_rows(len(documents), _READ, seed, 66))


def _some(rows: Sequence[T], n: int, rng: np.random.Generator) -> list[T]:
    if len(rows) <= n:
        return list(rows)
    return [rows[i] for i in np.sort(rng.choice(len(rows), n, replace=False))]
