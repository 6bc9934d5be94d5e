"""The platform that all arms of a study share: world, documents, and the searches that truth is measured on."""

from dataclasses import dataclass
from functools import cached_property

from corewrite.cycle import read_catalogue
from corewrite.deployment.deployment import Deployment, embedded_deployment
from corewrite.domain import Catalogue
from corewrite.fusion import default_spec
from corewrite.relevance import cold_start
from corewrite.rewriter import Rewriter
from corewrite.search import Cascade
from corewrite.simulation.config import TrafficConfig
from corewrite.simulation.traffic import simulate_week
from corewrite.simulation.week import Week
from corewrite.simulation.world import World, make_world
from corewrite.studies.engine import OnePolicyEngine, assign_arm
from corewrite.studies.incidents.config import IncidentsConfig
from corewrite.studies.incidents.layout import StudyLayout


@dataclass(frozen=True, eq=False)
class StudyPlatform:
    """World and documents of a study.

    Attributes:
        config: Settings.
        layout: Where its files are.
        world: Truth.
        catalogue: The documents, as they are in the file.
    """

    config: IncidentsConfig
    layout: StudyLayout
    world: World
    catalogue: Catalogue

    @classmethod
    def open(cls, config: IncidentsConfig, layout: StudyLayout) -> "StudyPlatform":
        """The platform of a study whose documents are written."""
        return cls(config, layout, make_world(config.platform.seeded_world), read_catalogue(layout.documents))

    @cached_property
    def cold(self) -> Deployment:
        """What ranks before there is a log."""
        model = cold_start(self.catalogue, seed=self.config.seed)
        return embedded_deployment(self.catalogue, model, default_spec())

    def serve(
        self, week: int, cascade: Cascade, policy: Rewriter | None, traffic: TrafficConfig, sessions: int | None = None
    ) -> Week:
        """A week's traffic.

        Args:
            week: Its number.
            cascade: Ranks.
            policy: Rewrites, but not for the holdback's users; None: for nobody.
            traffic: What users do.
            sessions: How many; None: as many as a week has.
        """
        engine = OnePolicyEngine(cascade, policy, self.config.platform.pipeline.max_new_tokens)
        return simulate_week(
            self.world,
            traffic,
            engine,
            week=week,
            sessions=sessions or self.config.platform.sessions,
            assign_arm=assign_arm,
        )

    def measured(self, week: int, cascade: Cascade, traffic: TrafficConfig) -> Week:
        """The searches of a week that truth is measured on: of users without a rewriter, under one ranker for all arms.

        Args:
            week: Its number.
            cascade: Ranks.
            traffic: What users do.
        """
        return self.serve(week, cascade, None, traffic, self.config.measured_sessions)
