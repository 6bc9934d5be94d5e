"""All incidents by name."""

from collections.abc import Mapping

from corewrite.domain.settings import unknown_name
from corewrite.studies.incidents.documents import DOCUMENT_INCIDENTS
from corewrite.studies.incidents.incident import Incident
from corewrite.studies.incidents.log_files import LOG_INCIDENTS
from corewrite.studies.incidents.models import MODEL_INCIDENTS
from corewrite.studies.incidents.policies import POLICY_INCIDENTS
from corewrite.studies.incidents.scores import SCORE_INCIDENTS
from corewrite.studies.incidents.seasons import SEASONS
from corewrite.studies.incidents.specs import SPEC_INCIDENTS

_ALL = (
    *SCORE_INCIDENTS,
    *MODEL_INCIDENTS,
    *SPEC_INCIDENTS,
    *LOG_INCIDENTS,
    *DOCUMENT_INCIDENTS,
    *POLICY_INCIDENTS,
    *SEASONS,
)
_KINDS = ("learned hack", "fault", "no incident")
INCIDENTS: Mapping[str, Incident] = {i.name: i for kind in _KINDS for i in _ALL if i.kind == kind}
"""By name, learned hacks first."""


def find_incident(name: str) -> Incident:
    """The incident of a name.

    Raises:
        ValueError: there is none; all names are listed.
    """
    if name not in INCIDENTS:
        raise ValueError(f"incident {name!r}: {unknown_name(name, INCIDENTS)}; all are: {', '.join(INCIDENTS)}")
    return INCIDENTS[name]
