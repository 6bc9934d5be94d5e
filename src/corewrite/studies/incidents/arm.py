"""An arm: weeks of traffic and cycles, with a gate or without, under an incident or none."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from corewrite.cycle import read_catalogue, write_catalogue
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.parts import CycleParts
from corewrite.cycle.promotion import GatedPromotion
from corewrite.cycle.records import PROBE, CycleJournal
from corewrite.cycle.run import run_cycle
from corewrite.cycle.steps.fit_relevance import refit
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.load import load_deployment, load_policy
from corewrite.deployment.open import RankerOpener
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Documents
from corewrite.domain.steps import Steps
from corewrite.fusion import default_spec
from corewrite.rewriter import Rewriter
from corewrite.simulation.export import write_log
from corewrite.simulation.raters import write_descriptions
from corewrite.simulation.week import Week
from corewrite.storage.durable import naming, whole_file
from corewrite.storage.journal import write_json
from corewrite.storage.json_file import read_object
from corewrite.studies.incidents.incident import Incident, Injection
from corewrite.studies.incidents.layout import ArmLayout
from corewrite.studies.incidents.log_files import described_alike, read_lines, write_lines
from corewrite.studies.incidents.platform import StudyPlatform
from corewrite.studies.incidents.scores import FaultyOpener
from corewrite.studies.layout import week_name
from corewrite.studies.raters import SimulatedRaters, read_descriptions
from corewrite.studies.ungated import UngatedPromotion, with_cheap_gate

_DECIDED = ("verdict", "reason", "failed", "mitigations_applied", "recovered", "alarms")


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm of a study.

    Attributes:
        platform: That all arms share.
        layout: Where its files are.
        gated: Whether its cycles have a gate.
        incident: What goes wrong; None: nothing.
        injected: What differs while it lasts.
        since: Number of the first week of the incident.
        steps: Shows progress.
    """

    platform: StudyPlatform
    layout: ArmLayout
    gated: bool
    incident: Incident | None
    injected: Injection
    since: int
    steps: Steps

    def injection(self, week: int) -> Injection:
        """What differs in a week."""
        lasts = self.incident is not None and self.incident.lasts(week - self.since)
        return self.injected if lasts else Injection()

    def settings(self, week: int) -> RankerSettings:
        """What the settings say of the ranker in a week."""
        return self.injection(week).ranker(RankerSettings())

    def opener(self, week: int, settings: RankerSettings, documents: Documents) -> RankerOpener:
        """Opens rankers in a week: by way of the faulty service, while there is one."""
        scorer = self.injection(week).scorer
        return RankerOpener(settings, documents) if scorer is None else FaultyOpener(settings, documents, scorer)

    def production(self, week: int) -> dict[str, str]:
        """Hashes of what serves in a week, pinned before its first search: a run cut off must not see its own outcome."""
        pinned = self.layout.production(week)
        if not pinned.is_file():
            champion = self.layout.registry.champion()
            assert champion is not None  # the trunk ends with one
            write_json(pinned, {str(kind): hash for kind, hash in champion.hashes.items()})
        return read_object(pinned, ValueError, "remove the arm's folder, and it is run again")

    def deployment(self, week: int) -> Deployment:
        """What ranks in a week."""
        serving = self.production(week)
        documents = self._documents(week)
        opener = self.opener(week, self.settings(week), documents)
        return load_deployment(self.layout.registry, opener, serving["relevance"], serving["spec"])

    def policy(self, week: int) -> Rewriter:
        """What rewrites in a week."""
        return load_policy(self.layout.registry, self.production(week)["policy"])

    def serve(self, week: int) -> Week:
        """The week's traffic, and its log."""
        traffic = self.injection(week).traffic(self.platform.config.platform.traffic)
        with self.steps.step(f"{week_name(week)}: traffic"):
            happened = self.platform.serve(week, self.deployment(week).cascade, self.policy(week), traffic)
            self.write_log(happened, week)
        return happened

    def write_log(self, happened: Week, week: int) -> None:
        """The week's log, as the incident leaves it; where that is nothing, there is none."""
        path, change = self.layout.log(week), self.injection(week).log
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write_log(happened, self.platform.catalogue, temporary)
        described = self.layout.descriptions(week)
        described.parent.mkdir(parents=True, exist_ok=True)
        write_descriptions(self.platform.world, happened, described)
        if change is None:
            return
        lines = change(read_lines(path), self.platform.catalogue)
        if not lines:
            path.unlink()
            return
        with whole_file(path) as temporary:
            write_lines(lines, temporary)
        known = described_alike(lines, read_descriptions([described]))
        with whole_file(described) as temporary:
            pq.write_table(pa.table({"search_id": list(known), "description": list(known.values())}), temporary)

    def cycle(self, week: int) -> dict[str, Any]:
        """The cycle on the week's log: what it decided, or why it stopped."""
        injection = self.injection(week)
        with naming(self.layout.spec):
            spec = injection.spec(default_spec()).model_dump(mode="json")
            self.layout.spec.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        promotion = GatedPromotion() if self.gated else UngatedPromotion()
        described = [path for w in range(week + 1) if (path := self.layout.descriptions(w)).is_file()]
        try:
            record: Mapping[str, Any] = run_cycle(
                self._config(week),
                week_name(week),
                steps=self.steps,
                refit=injection.refit(refit),
                promotion=promotion,
                raters=SimulatedRaters(self.platform.world, read_descriptions(described)),
                parts=CycleParts(partial(self.opener, week), injection.export),
            )
        except ValueError as error:  # the cycle says that it cannot be run: somebody is called, and the champion stays
            return {"verdict": "stopped", "reason": str(error)[:300], "caught_by": f"stopped: {self._stopped_at(week)}"}
        return {**{k: record[k] for k in _DECIDED}, **self._probed(week), "caught_by": self._caught_by(week, record)}

    def _config(self, week: int) -> CycleConfig:
        config, shared = self.platform.config.platform, self.platform.layout
        self._documents(week)
        own = self.layout.documents
        pipeline = config.pipeline if self.gated else with_cheap_gate(config.pipeline)
        return CycleConfig(
            run=self.layout.run.root,
            documents=own if own.is_file() else shared.documents,
            logs=self.layout.logs,
            labels=shared.labels,
            frozen=shared.frozen,
            ranker=self.settings(week),
            spec=self.layout.spec,
            seed=config.seed,
            refresh=config.refresh,
            recovery=config.recovery,
            pipeline=pipeline,
        )

    def _documents(self, week: int) -> Documents:
        """The documents of a week; the arm has a file of its own while they differ."""
        sound = self.platform.catalogue
        changed = self.injection(week).documents(sound)
        if changed is sound:
            self.layout.documents.unlink(missing_ok=True)
            return sound
        with whole_file(self.layout.documents) as temporary:
            write_catalogue(changed, temporary)
        return read_catalogue(self.layout.documents)

    def _probed(self, week: int) -> dict[str, Any]:
        """Whether the ranker's probe passed; None where nothing was probed."""
        probed = CycleJournal(self.layout.run.root, week_name(week)).result(PROBE)
        found: Mapping[str, Any] = probed.get("probe") or {}
        findings = found.get("findings", ())
        paid = [finding["name"] for finding in findings if finding["paid"]]
        return {"probe_passed": not paid if findings else None, "probe_paid": paid}

    def _caught_by(self, week: int, record: Mapping[str, Any]) -> str | None:
        """The step or check that spoke up; None: none did."""
        probed = CycleJournal(self.layout.run.root, week_name(week)).result(PROBE)
        if not probed["accepted"]:
            paid = self._probed(week)["probe_paid"]
            return f"probe: {', '.join(paid)}" if paid else f"validate_ranker: {_check_named(probed['alarms'][-1])}"
        if record["verdict"] != "promote":
            return f"{record['verdict']}: {', '.join(record['failed']) or record['reason'].split(':')[0]}"
        return None

    def _stopped_at(self, week: int) -> str:
        done = CycleJournal(self.layout.run.root, week_name(week)).done()
        return f"after {done[-1]}" if done else "reading the log"


def _check_named(alarm: str) -> str:
    """The check that an alarm of the champion's validation begins with."""
    return alarm.split("stays: ")[-1].split(":")[0][:80]
