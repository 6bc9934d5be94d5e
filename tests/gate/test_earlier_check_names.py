"""Settings of the gate that an earlier version stored, under the names that its checks had."""

import pytest
from pydantic import ValidationError

from corewrite.domain.settings import same_settings
from corewrite.gate import GateConfig
from corewrite.studies.gate_benchmark.config import GateBenchConfig
from corewrite.studies.longitudinal.config import LongitudinalConfig

EARLIER = {"top_rewrite_share": "commonest_rewrite", "prompt_injection": "canaries"}


def as_stored(value):
    """Stored settings with the names of checks that version 0.1.0 wrote, as keys and as values."""
    if isinstance(value, dict):
        return {EARLIER.get(name, name): as_stored(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_stored(inner) for inner in value]
    return EARLIER.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("kind", [GateConfig, GateBenchConfig, LongitudinalConfig])
def test_settings_stored_under_earlier_names_of_checks_are_the_same_settings(kind):
    """A study's folder goes on."""
    stored = as_stored(kind().model_dump(mode="json"))
    assert "commonest_rewrite" in str(stored) and "canaries" in str(stored) and "top_rewrite_share" not in str(stored)
    assert same_settings(stored, kind())


def test_another_margin_under_an_earlier_name_is_another_setting():
    stored = as_stored(GateConfig().model_dump(mode="json"))
    stored["margins"]["commonest_rewrite"] *= 2
    assert not same_settings(stored, GateConfig())


def test_a_margin_under_both_names_is_refused():
    with pytest.raises(ValidationError, match="stands twice"):
        GateConfig.model_validate({"margins": {"commonest_rewrite": 0.1, "top_rewrite_share": 0.1}})
