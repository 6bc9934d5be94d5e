"""Incidents of the documents' file."""

from dataclasses import replace

import numpy as np

from corewrite.domain import Catalogue, keyed_uniform
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection


def without_pictures(catalogue: Catalogue, share: float, seed: int) -> Catalogue:
    """The documents, of which a share have a picture of zeros."""
    lost = keyed_uniform(seed, np.arange(len(catalogue)), 94) < share
    return replace(catalogue, visual=np.where(lost[:, None], np.float32(0.0), catalogue.visual))


def _loses_pictures(strength: float, point: BranchPoint) -> Injection:
    return Injection(documents=lambda catalogue: without_pictures(catalogue, strength, point.seed))


DOCUMENT_INCIDENTS = (
    Incident(
        "zero-pictures",
        "fault",
        "the documents' file has zeros for pictures, for a week",
        (0.5, 1.0),
        "share of the documents",
        1,
        True,
        _loses_pictures,
    ),
)
