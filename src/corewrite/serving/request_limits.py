"""A request within the server's limits, or refused with the field that is not."""

from corewrite.domain import Query
from corewrite.serving.problems import ProblemError
from corewrite.serving.schemas import WireQuery
from corewrite.serving.settings import Limits


def read_query(wired: WireQuery, limits: Limits, where: str) -> Query:
    """The query of a request; `where` is its place in the body.

    Raises:
        ProblemError: it is over a limit.
    """
    query = wired.asked()
    c = query.context
    if len(c.queries) > limits.context_items or len(c.titles) > limits.context_items:
        raise refusal(f"{where}.context", f"at most {limits.context_items} earlier queries and titles are taken")
    for name, text in ((f"{where}.query", query.text), *((f"{where}.context", t) for t in (*c.queries, *c.titles))):
        check_text(name, text, limits)
    return query


def check_text(where: str, text: str, limits: Limits) -> None:
    """Refuse a text, at place `where` of the body, that is too long.

    Raises:
        ProblemError: it is.
    """
    if len(text) > limits.query_characters:
        raise refusal(where, f"a text of {len(text)} characters is over the limit of {limits.query_characters}")


def check_depth(depth: int, limits: Limits) -> int:
    """The number of results asked for.

    Raises:
        ProblemError: it is over the limit.
    """
    if depth > limits.depth:
        raise refusal("body.depth", f"at most {limits.depth} results are given")
    return depth


def refusal(where: str, why: str) -> ProblemError:
    """A response 422 that names one field and what is wrong with it."""
    return ProblemError(422, "1 field(s) are refused", errors=[{"at": where, "problem": why}])
