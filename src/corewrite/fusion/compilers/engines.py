"""The engines a spec compiles to."""

from collections.abc import Callable, Mapping
from typing import Any

from corewrite.domain import plugins
from corewrite.fusion.compilers import elasticsearch, opensearch, qdrant, vespa
from corewrite.fusion.compilers.features import CompileError
from corewrite.fusion.spec import FusionSpec

ENGINES: dict[str, Callable[[FusionSpec, Mapping[str, str]], Any]] = {
    "vespa": vespa.rank_profile,
    "opensearch": opensearch.search_body,
    "elasticsearch": elasticsearch.search_body,
    "qdrant": qdrant.query_body,
}
"""Compiler by the engine's name: those that come with `corewrite`."""


def engine_names() -> list[str]:
    """All engines that a spec compiles to: ours, then those of installed packages (entry points `corewrite.compilers`).

    Raises:
        ValueError: a package's engine has a name that is taken.
    """
    return [*ENGINES, *plugins.plugin_names(plugins.COMPILERS, ENGINES)]


def compile_spec(spec: FusionSpec, engine: str, features: Mapping[str, str] | None = None) -> Any:
    """Write a spec in an engine's language.

    Args:
        spec: The spec.
        engine: One of `engine_names()`. A package's compiler is called as ours are, with spec and features.
        features: The engine's feature by `query.NAME` or `rewrite.NAME`; docs/how-to/compile-spec.md: what is taken where
            none is named.

    Returns:
        vespa: the text of a rank profile. The others: a request body for JSON, with placeholders `"${name}"`;
        what a package's compiler gives must be text or JSON as well.

    Raises:
        CompileError: no such engine, a feature of no signal, or a spec that the engine cannot hold.
        ValueError: a package's compiler cannot be imported, or has a name that is taken.
    """
    known = engine_names()
    if engine not in known:
        raise CompileError(f"no engine {engine!r}: there are {', '.join(known)}")
    compiler = ENGINES[engine] if engine in ENGINES else plugins.load_plugin(plugins.COMPILERS, engine)
    return compiler(spec, features or {})
