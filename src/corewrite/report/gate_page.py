"""One decision of the gate as a page of its own."""

from collections.abc import Mapping
from typing import Any

from corewrite.report.page import environment


def render_gate(result: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Render a decision of the gate as a self-contained page, with the sections that the report of a run has for it.

    Reasons may quote queries and rewrites, which are untrusted: escaped, with control characters spelled out. A number
    that is null is shown as "–".

    Args:
        result: The decision, as `GateResult.as_dict` gives it. A check may also name what it compares with
            (`compare`) and what to do about a failure (`mitigation`), and its verdict may be "skipped".
        about: What it is about, every key optional: candidate, champion, week, decided_at, simulated (true where users and
            logs are), command, machine, code_version, seed, seconds, provenance.

    Returns:
        The page; equal arguments give equal text.

    Raises:
        KeyError: a check lacks one of its parts.
        TypeError: a number is neither a number nor null.
    """
    return environment().get_template("gate_page.html").render(gate=result, about=about)
