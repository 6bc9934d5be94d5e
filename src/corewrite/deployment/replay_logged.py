"""Whether a fusion spec reproduces what production's own engine logged, before anything is trained on the spec.

Nothing is scored here: signals, factors and scores all come from the log (`corewrite.logs.rankings`), so that signals of kind
`logged` will do.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corewrite.deployment.replay import ReplayError
from corewrite.fusion import FusionSpec, ReplayResult, StageFusion, StageSpec, evaluate_stage
from corewrite.logs.files import log_files, log_lines
from corewrite.logs.rankings import LoggedRanking, read_ranking
from corewrite.logs.served import read_served

FloatArray = npt.NDArray[np.float64]
TOLERANCE = 1e-6
_REASONS = 20
_EXPLAINED = 1 - 1e-6
"""Share of the squared differences that other exponents must leave nothing of, to be named."""


@dataclass(frozen=True)
class LoggedReplay:
    """What a spec makes of the rankings that production logged.

    Differences are absolute, and below 1 relative to the larger of both numbers: a score of 1e-9 is no match for 2e-9.

    Attributes:
        spec_hash: Of the spec.
        searches: Rankings recomputed.
        same_order: Of those, in which the spec's scores fall from each document to the next, ties within 1e-6 aside.
        scores: Logged scores against the spec's; None where no line has scores.
        by_factor: Logged factors against the spec's, by name; one that the spec does not have agrees nowhere.
        exponents: By factor, the exponent that production's scores ask for, where the scores differ and other exponents alone
            explain that; else empty.
        unchecked: Factors of the rewrite that no line had a signal for.
        unusable: Lines with a ranking that cannot be recomputed, by reason.
        passed_over: Lines without a ranking: events, other searches.
    """

    spec_hash: str
    searches: int
    same_order: int
    scores: ReplayResult | None
    by_factor: Mapping[str, ReplayResult]
    exponents: Mapping[str, float]
    unchecked: tuple[str, ...]
    unusable: Mapping[str, int]
    passed_over: int

    @property
    def share_agreeing(self) -> float:
        """The lowest of: the share of scores that agree, that of any factor, and the share of rankings that were usable."""
        shares = [one.share_agreeing for one in (self.scores, *self.by_factor.values()) if one is not None]
        return min(*shares, self.searches / (self.searches + sum(self.unusable.values())))


@dataclass(frozen=True, eq=False)
class _Recomputed:
    """One ranking, arrays [documents].

    Attributes:
        factors: Of the spec, by name.
        score, log_score: Of the spec.
    """

    factors: Mapping[str, FloatArray]
    score: FloatArray
    log_score: FloatArray


def has_rankings(log: Path) -> bool:
    """Whether a log holds rankings of production's own engine, and no search that `corewrite serve` wrote.

    Raises:
        LogError: a file of the log cannot be read.
    """
    found = False
    for path in log_files(log):
        for line in log_lines(path):
            if b'"served"' in line and _is_served(line):
                return False
            found = found or (b'"ranking"' in line)
    return found


def _is_served(line: bytes) -> bool:
    try:
        read_served(line)
    except ValueError:
        return False
    return True


def replay_rankings(
    log: Path, spec: FusionSpec, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> LoggedReplay:
    """Evaluate a spec's finerank on the logged signals and compare with the logged scores and factors.

    Args:
        log: A file, or a folder of them.
        spec: The spec that production is said to rank by.
        progress: Called with (files done, of how many).

    Raises:
        LogError: a file of the log cannot be read.
        ReplayError: no ranking in it can be recomputed; the message says why.
    """
    stage = spec.finerank
    pairs: dict[str, list[tuple[FloatArray, FloatArray]]] = defaultdict(list)
    scored: list[tuple[FloatArray, _Recomputed]] = []
    unusable: Counter[str] = Counter()
    rewritten: set[str] = set()
    searches = same_order = passed_over = 0
    files = log_files(log)
    for done, path in enumerate(files, 1):
        for line in log_lines(path):
            try:
                entry = read_ranking(line)
                if entry is None:
                    passed_over += 1
                    continue
                ranking = entry.ranking
                here = _recomputed(stage, ranking, len(entry.query_response_hit_ids))
            except ValueError as error:
                reason = str(error)[:200]
                unusable[reason if reason in unusable or len(unusable) < _REASONS else "other reasons"] += 1
                continue
            searches += 1
            same_order += bool((np.diff(here.log_score) <= TOLERANCE).all())
            rewritten |= {j.signal for j in stage.rewrite} & (ranking.rewrite_signals or {}).keys()
            if ranking.scores is not None:
                scored.append((np.array(ranking.scores), here))
            for name, values in ranking.factors.items():
                pairs[name].append((np.array(values), here.factors.get(name, np.full(len(values), np.nan))))
        progress(done, len(files))
    if not searches:
        why = f", such as: {unusable.most_common(1)[0][0]}" if unusable else ": see docs/how-to/plug-in.md for what to log"
        raise ReplayError(
            f"{log} holds no ranking that the spec can be checked on ({sum(unusable.values())} unusable, {passed_over} lines "
            f"without one){why}"
        )
    scores = _agreement([(logged, here.score) for logged, here in scored]) if scored else None
    asked = _exponents(stage, scored) if scores is not None and scores.share_agreeing < 1 else {}
    unchecked = tuple(f"rewrite.{j.signal}" for j in stage.rewrite if j.exponent and j.signal not in rewritten)
    return LoggedReplay(
        spec.spec_hash,
        searches,
        same_order,
        scores,
        {n: _agreement(p) for n, p in sorted(pairs.items())},
        asked,
        unchecked,
        dict(unusable),
        passed_over,
    )


def _recomputed(stage: StageSpec, ranking: LoggedRanking, documents: int) -> _Recomputed:
    """Evaluate one ranking.

    Raises:
        ValueError: a signal of the spec was not logged, or an original one has no number for some document.
    """
    under_query = {name: _numbers(values) for name, values in ranking.signals.items()}
    for j in stage.rewrite:
        if j.relative_to == "constant":  # what the query itself scores is not asked for
            under_query.setdefault(j.signal, np.full(documents, np.nan))
    missing = [name for name in stage.signals if name not in under_query]
    if missing:
        raise ValueError(f"the signal {missing[0]!r} of the spec is not in ranking.signals")
    under_rewrite = None
    if ranking.rewrite_signals is not None:
        under_rewrite = {name: _numbers(values) for name, values in ranking.rewrite_signals.items()}
    fusion = evaluate_stage(stage, under_query, under_rewrite)
    return _Recomputed(_factors(fusion), fusion.score, fusion.log_score)


def _factors(fusion: StageFusion) -> dict[str, FloatArray]:
    original = {f"original.{name}": values for name, values in fusion.original_factors.items()}
    return original | {f"rewrite.{name}": values for name, values in fusion.rewrite_factors.items()}


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _agreement(pairs: Sequence[tuple[FloatArray, FloatArray]]) -> ReplayResult:
    """Of (logged, recomputed) numbers; NaN agrees with nothing."""
    logged, again = (np.concatenate(side) for side in zip(*pairs, strict=True))
    size = np.minimum(1.0, np.maximum(np.abs(logged), np.abs(again)))
    gap = np.abs(logged - again)
    gap = np.divide(gap, size, out=gap.copy(), where=size > 0)
    gap = np.where(np.isnan(gap), np.inf, gap)
    return ReplayResult(float((gap <= TOLERANCE).mean()), len(gap), float(gap.max()))


def _exponents(stage: StageSpec, scored: Sequence[tuple[FloatArray, _Recomputed]]) -> dict[str, float]:
    """Exponents other than the spec's that give production's scores; empty where no exponents do.

    The log of a score is linear in the exponents, so least squares on the differences finds them.
    """
    exponents = {f"original.{i.signal}": i.exponent for i in stage.original}
    exponents |= {f"rewrite.{j.signal}": j.exponent for j in stage.rewrite if j.exponent}
    logged = np.concatenate([scores for scores, _ in scored])
    again = np.concatenate([here.log_score for _, here in scored])
    with np.errstate(divide="ignore", invalid="ignore"):
        base = {
            name: np.log(np.concatenate([here.factors[name] for _, here in scored])) / exponent
            for name, exponent in exponents.items()
        }
        differences = np.log(logged) - again
    table = np.stack(list(base.values()), axis=1)
    usable = np.isfinite(differences) & np.isfinite(table).all(axis=1)
    if usable.sum() < 2 * len(base) or not usable.all():
        return {}
    more, *_ = np.linalg.lstsq(table, differences, rcond=None)
    left = differences - table @ more
    if (left**2).sum() > (1 - _EXPLAINED) * (differences**2).sum():
        return {}
    return {
        name: round(exponent + float(change), 6)
        for (name, exponent), change in zip(exponents.items(), more, strict=True)
        if abs(change) > TOLERANCE * 100
    }
