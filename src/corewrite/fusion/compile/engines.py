"""The engines a spec compiles to."""

from collections.abc import Callable, Mapping
from typing import Any

from corewrite.fusion.compile import elasticsearch, opensearch, qdrant, vespa
from corewrite.fusion.compile.features import CompileError
from corewrite.fusion.spec import FusionSpec

ENGINES: dict[str, Callable[[FusionSpec, Mapping[str, str]], Any]] = {
    "vespa": vespa.rank_profile,
    "opensearch": opensearch.search_body,
    "elasticsearch": elasticsearch.search_body,
    "qdrant": qdrant.query_body,
}
"""Compiler by the engine's name."""


def compile_spec(spec: FusionSpec, engine: str, features: Mapping[str, str] | None = None) -> Any:
    """Write a spec in an engine's language.

    Args:
        spec: The spec.
        engine: One of `ENGINES`.
        features: The engine's feature by `query.NAME` or `rewrite.NAME`; see docs/engines.md for what is taken where
            none is named.

    Returns:
        vespa: the text of a rank profile. The others: a request body for JSON, with placeholders `"${name}"`.

    Raises:
        CompileError: no such engine, a feature of no signal, or a spec that the engine cannot hold.
    """
    if engine not in ENGINES:
        raise CompileError(f"no engine {engine!r}: there are {', '.join(ENGINES)}")
    return ENGINES[engine](spec, features or {})
