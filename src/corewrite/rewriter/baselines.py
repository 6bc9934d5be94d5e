"""Rewriters without a language model."""

from corewrite.domain import Query


def last_query(query: Query) -> str | None:
    """The query behind the session's previous one; None where there is none."""
    return f"{query.context.queries[-1]} {query.text}" if query.context.queries else None


def first_and_last_query(query: Query) -> str | None:
    """The query behind the first and the last of the context's earlier queries; None where there is none."""
    earlier = query.context.queries
    return " ".join([*dict.fromkeys((earlier[0], earlier[-1])), query.text]) if earlier else None
