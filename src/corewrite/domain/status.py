"""Words for how a search ended and how a signal fared."""

from enum import StrEnum


class Outcome(StrEnum):
    """Every search ends in exactly one of three ways; those too near the log's end are censored."""

    SATISFIED = "satisfied"
    CHANGED = "changed_unsatisfied"
    GAVE_UP = "gave_up"
    CENSORED = "censored"


class SignalStatus(StrEnum):
    """How a rewrite signal fared at one stage of one request."""

    OK = "ok"
    NEUTRAL = "neutral"
    TIMEOUT = "timeout"
    ERROR = "error"
    OFF = "off"
