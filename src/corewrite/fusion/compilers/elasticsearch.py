"""Elasticsearch."""

from collections.abc import Mapping
from typing import Any

from corewrite.fusion.compilers.painless import painless_body
from corewrite.fusion.spec import FusionSpec


def search_body(spec: FusionSpec, given: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST INDEX/_search`; see `painless_body`."""
    return painless_body(spec, given, "Elasticsearch")
