"""What is no incident, though figures move."""

from corewrite.simulation.config import TrafficConfig
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection


def holidays(traffic: TrafficConfig, strength: float) -> TrafficConfig:
    """Users who look around: more searches for a kind of video or for somebody in general, fewer that follow from a video."""
    return traffic.model_copy(
        update={
            "exploratory": traffic.exploratory + 0.2 * strength,
            "entity_only": traffic.entity_only + 0.15 * strength,
            "related_context": traffic.related_context * (1 - 0.5 * strength),
            "next_search": min(0.9, traffic.next_search * (1 + 0.4 * strength)),
        }
    )


def _has_holidays(strength: float, point: BranchPoint) -> Injection:
    return Injection(traffic=lambda traffic: holidays(traffic, strength))


SEASONS = (
    Incident(
        "seasonal-shift",
        "no incident",
        "users look around more than they did, for two weeks",
        (0.5, 1.0),
        "of the holidays' full change of habits",
        2,
        True,
        _has_holidays,
    ),
)
