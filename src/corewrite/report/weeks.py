"""The page of a longitudinal simulation: week by week, with and without the gate, retrained or not."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from corewrite.report import charts, week_views
from corewrite.report.page import environment
from corewrite.report.views import build_interval


def render_weeks(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Render a run over weeks as a self-contained page: no script, nothing loaded from anywhere.

    A section whose data the run lacks is left out and a number that is null is shown as "–". All text is untrusted:
    escaped, with control characters spelled out.

    Args:
        rows: A row for each week and arm, as parsed JSON: week, arm ("weekly", "never", "no_gate", "holdback"), cqr, give_up,
            reward, judge, ndcg10, verdict ("promote", "hold", "reject" or null), policy, and where known the verdict's reason.
        about: What else is known, every key optional: seed, machine, code_version, command, seconds, provenance; weeks, how
            many were planned; incident_weeks; rejections, each a week, reason, mitigation and recovered_in (week of the
            next promotion, or null); alarms, each a week and text; promoted_share; comparisons, each a name, difference, low,
            high, weeks and n, with the `metric` (a key of a row) where it is known, the first being weekly minus never
            retrained; below_holdback, each a week, `metric` where it is known, low and high of weekly minus holdback, higher is
            better, corrected for the number of weeks.

    Returns:
        The page; equal arguments give equal text.

    Raises:
        KeyError: a row or a part of `about` lacks one of its figures.
        TypeError: a number is neither a number nor null.
        ValueError: there is no row, a week has two rows of an arm, there are more than 4 arms, or a verdict is another word.
    """
    run = week_views.Run.of(rows, about.get("incident_weeks") or ())
    rejections, alarms = about.get("rejections") or (), about.get("alarms") or ()
    return (
        environment()
        .get_template("weeks.html")
        .render(
            run=run,
            about=about,
            cards=week_views.headline(run, about),
            metrics=week_views.METRICS,
            chart=_chart(run),
            comparisons=[_comparison(comparison) for comparison in about.get("comparisons") or ()],
            holdback=[
                (row, week_views.build_words(row), week_views.is_below(row)) for row in about.get("below_holdback") or ()
            ],
            weekly=week_views.weekly(run, rejections),
            log=week_views.log(run, alarms, rejections),
            in_weeks=week_views.in_weeks,
        )
    )


def _chart(run: week_views.Run) -> Markup | None:
    panels, ends = run.panels(), (run.weeks[0], run.weeks[-1])
    if not panels:
        return None
    return Markup(charts.week_lines(panels, verdicts=run.verdicts, shaded=run.incidents, weeks=ends))


def _comparison(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison with its answer, its weeks in words and its interval drawn."""
    found = build_interval(comparison["name"], comparison["difference"], comparison["low"], comparison["high"])
    strip = None if found is None else Markup(charts.interval_strip(found, None))
    words = week_views.spell(comparison["weeks"])
    return {**comparison, "answer": week_views.answer(comparison), "weeks": words, "strip": strip}
