"""OpenSearch."""

from collections.abc import Mapping
from typing import Any

from corewrite.fusion.compilers.painless import painless_body
from corewrite.fusion.spec import FusionSpec


def search_body(spec: FusionSpec, given: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST INDEX/_search`; see `painless_body`.

    Nothing of it is only Elasticsearch's: no script rescorer, no `field()`; what differs are the vector functions that a
    feature may name, see docs/how-to/compile-spec.md.
    """
    return painless_body(spec, given, "OpenSearch")
