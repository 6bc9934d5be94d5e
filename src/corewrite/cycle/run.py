"""One week: ingest, mine, refresh and probe the relevance model, train from the champion, gate, decide, report.

Every step's result is a file of the cycle's journal; what it makes is an artifact of the registry or a mined window. A cycle
that was killed goes on where it was, and ends as one that was not.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from corewrite.cycle.candidate import open_sampler, to_train, training_progress, write_spec
from corewrite.cycle.candidate_config import JudgeConfig, TreeJudgeConfig
from corewrite.cycle.catalogue_files import read_catalogue, read_labels
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.judges import build_judge
from corewrite.cycle.mined_week import MinedWindow, build_impressions, first_thresholds, freeze, mine_week, with_documents
from corewrite.cycle.records import open_journal, open_journals
from corewrite.cycle.recovery import mitigated, mitigations, shown_rate, stuck, suspicious, verdicts_in_a_row
from corewrite.cycle.steps.decide import decide
from corewrite.cycle.steps.gate_searches import gate_searches
from corewrite.cycle.steps.rollout import begin_ramp, carry_ramp, ramp_lock, read_ramp
from corewrite.cycle.steps.validate_ranker import champion_holds
from corewrite.cycle.steps.warm_start import warm_start, weekly_examples
from corewrite.cycle.users import frozen_users
from corewrite.cycle.weeks import CycleError, weekly_logs
from corewrite.deployment.deployment import Deployment
from corewrite.deployment.documents import open_documents
from corewrite.deployment.inputs import check_inputs, training_room
from corewrite.deployment.load import first_champion, load_deployment, load_policy, recent_champions
from corewrite.deployment.open import RankerOpener, load_embedder
from corewrite.deployment.random_pairs import random_pairs
from corewrite.deployment.run_folder import note_documents
from corewrite.deployment.settings import RankerSettings
from corewrite.domain import Catalogue, Documents, Provenance, sha256_json
from corewrite.domain.steps import Steps
from corewrite.evaluation.build import OF_NO_LINEAGE, evaluate
from corewrite.evaluation.searches import OF_A_WARM_START
from corewrite.fusion import default_spec, load_spec
from corewrite.gate import Absent, refuse, run_gate
from corewrite.logs import read_evaluation_instances
from corewrite.logs.sealing import Unseal, load_keys
from corewrite.registry import JSON, Candidate, Champion, ConflictError, Decision, Registry, RegistryError
from corewrite.relevance import Impressions, Judge, LateInteraction, ProbeResult, cold_start, fit, probe
from corewrite.relevance.backends import ScorerMismatchError, ScorerUnavailableError
from corewrite.rewriter import Rewriter, RewriterError, fine_tune, load_rewriter, merged
from corewrite.search import top_overlap
from corewrite.search.document_store import DocumentStore, in_memory
from corewrite.storage.journal import Journal, JournalError, cycle_lock, running
from corewrite.training import retried, train
from corewrite.training.threads import with_threads
from corewrite.version import VERSION

Refit = Callable[[Catalogue, Impressions, int, Callable[[int, int], None]], LateInteraction]


def refit(catalogue: Catalogue, seen: Impressions, seed: int, progress: Callable[[int, int], None]) -> LateInteraction:
    """Fit the relevance model on examined impressions."""
    return fit(cold_start(catalogue, seen.texts, seed=seed), catalogue, seen, seed=seed, progress=progress)[0]


def _hash_settings(config: CycleConfig) -> str:
    """Hash of the settings, each under the name that it had when it was first hashed: a week that is half finished goes on."""
    settings = config.model_dump(mode="json", exclude_defaults=True)
    gate = settings.get("pipeline", {}).get("gate", {})
    if "minimum_effective_users" in gate:
        gate["minimum_users"] = gate.pop("minimum_effective_users")
    return sha256_json(settings)


def run_cycle(
    config: CycleConfig, week: str | None = None, *, steps: Steps, refit: Refit = refit, trusting: bool = False
) -> dict[str, Any]:
    """Run the cycle of a week, or go on with it.

    Args:
        config: Settings.
        week: Name of its log; None: the newest.
        steps: Shows progress.
        refit: Fits the relevance model.
        trusting: Promote whatever training gives and believe every relevance model: the arm without a gate of a simulation.

    Returns:
        The cycle's record: week, verdict, reason, what is in production after it, alarms, provenance.

    Raises:
        CycleRunningError: another cycle is at work.
        CycleError: no log, a week out of turn, or too little data.
        JournalError: the cycle began under other settings.
    """
    with cycle_lock(config.run):
        note_documents(config.run, config.documents)
        cycle = _Cycle.begin(config, week, steps, refit, trusting)
        if (finished := cycle.journal.read("record")) is not None:
            return finished
        with with_threads(cycle.plan.get("threads")):  # versions before did not write it down
            window = cycle.mine()
            champion = cycle.settle(window)
            if (stopped := cycle.without_ranker()) is not None:
                return stopped
            candidate = cycle.train(window)
            gate = cycle.gate(candidate)
            return cycle.decide(candidate, gate, champion)


def load_history(run: Path) -> list[dict[str, Any]]:
    """Records of the finished cycles, in the order of the weeks' names.

    Raises:
        JournalError: a record is damaged.
    """
    found = [_record(journal) for journal in open_journals(run)]
    return [record for record in found if record is not None]


def _record(journal: Journal) -> dict[str, Any] | None:
    """The record of a finished cycle, as far as others show it and go by it; None where it is not finished."""
    record = journal.read("record")
    if record is not None and record["week"] != journal.folder.name:
        raise JournalError(f"{journal.folder / 'record.json'} is damaged (it is of week {record['week']!r}): restore it")
    return record


def cycle_status(config: CycleConfig) -> dict[str, Any]:
    """Where a run stands: champion, who is running, unfinished weeks with the steps done, finished weeks, the ramp."""
    run = config.run
    champion = Registry(run / "registry").champion() if (run / "registry").is_dir() else None
    weeks = load_history(run)
    last = weeks[-1]["week"] if weeks else ""
    # What a later week has overtaken cannot be gone on with.
    unfinished = {j.folder.name: j.done() for j in open_journals(run) if j.read("record") is None and j.folder.name > last}
    ramp = read_ramp(run)
    return {
        "champion": None if champion is None else asdict(champion),
        "running": running(run),
        "unfinished": unfinished,
        "weeks": weeks,
        "ramp": None
        if ramp is None
        else {
            "status": ramp[0].status,
            "champion": ramp[0].champion,
            "share": ramp[0].share(ramp[1]),
            "last": ramp[0].history[-1].reason if ramp[0].history else "no look yet",
        },
    }


@dataclass(eq=False)
class _Cycle:
    """The state of one cycle in the making; `settle` sets what is in production under it."""

    config: CycleConfig
    week: str
    weeks: Mapping[str, list[Path]]
    journal: Journal
    registry: Registry
    documents: Documents
    history: list[dict[str, Any]]
    plan: dict[str, Any]
    labels: dict[str, Any]
    steps: Steps
    refit: Refit
    trusting: bool
    _gone: str = ""

    @classmethod
    def begin(cls, config: CycleConfig, week: str | None, steps: Steps, refit: Refit, trusting: bool) -> "_Cycle":
        weeks = weekly_logs(config.logs)
        if not weeks:
            raise CycleError(f"logs {config.logs} holds no log: a week is a file <week>.ndjson[.gz] or a folder of such")
        week = week or list(weeks)[-1]
        if week not in weeks:
            raise CycleError(f"logs {config.logs} holds no week {week!r}; there are {', '.join(list(weeks)[-5:])}")
        finished = load_history(config.run)
        history, later = [r for r in finished if r["week"] < week], [r["week"] for r in finished if r["week"] > week]
        journal, registry = open_journal(config.run, week), Registry(config.run / "registry")
        if later and journal.read("record") is None:
            raise CycleError(f"week {week!r} is out of turn: the cycle of {later[-1]!r} is finished; run a later week")
        champion, log = registry.champion(), registry.decisions()
        if champion is not None:
            _catch_up(config, log[champion.version - 1])
        if champion is None and list(weeks).index(week) == 0:
            raise CycleError(f"{week!r} is the only week of log: the first cycle needs the week before for the relevance model")
        if journal.read("record") is None:
            _check_inputs(config, weeks, week, begins=champion is None and journal.read("start-policy") is None)
        settings = _hash_settings(config)
        fitted = [i for i, r in enumerate(history) if r["relevance_fitted"] or r["recovered"]]
        every, since = config.refresh.relevance_every, len(history) - (fitted[-1] if fitted else 0)
        plan = journal.once(
            "start",
            lambda: {
                "week": week,
                "settings": settings,
                "champion": None if champion is None else champion.version,
                "relevance_due": champion is None or bool(every and since >= every),
                "mitigations": mitigations(history),
                "holds": verdicts_in_a_row(history, "hold"),
                "log": len(log),
                "code_version": VERSION,
                "threads": torch.get_num_threads(),
            },
        )
        if plan["settings"] != settings and journal.read("record") is None:
            raise JournalError(
                f"the cycle of {week!r} began under other settings: put them back, or remove {journal.folder} to begin anew"
            )
        documents = open_documents(config.documents, config.ranker, steps)
        labels = read_labels(config.labels, documents).counts()
        return cls(config, week, weeks, journal, registry, documents, history, plan, labels, steps, refit, trusting)

    # Steps, in order.

    def mine(self) -> MinedWindow:
        """Mine this week, and those before it that the relevance model needs."""
        names = [*self._before, self.week]
        with self.steps.step(f"{self.week}: read and mine the log"):
            overlap = top_overlap((self._at_start or self._of_settings).cascade)
            thresholds = None
            for name in names:
                window = mine_week(
                    self.weeks[name],
                    self.documents,
                    self._window(name).folder,
                    overlap=overlap,
                    thresholds=thresholds or first_thresholds(self.config.run),
                    seed=self.config.seed,
                    rejects=self.config.run / "rejects" / f"{name}.ndjson",
                    unseal=self._unseal,
                )
                thresholds = thresholds or window.thresholds
        self.journal.once("mine", lambda: {"windows": names, **window.about})
        if not self.config.frozen.is_file():
            freeze(self._window(names[0]).for_gate(self.config.frozen_queries), self.config.frozen)
        return self._window(self.week)

    def settle(self, window: MinedWindow) -> int | None:
        """Decide which relevance model and spec rank and reward: new ones only where probe and champion say so.

        Returns:
            Version of the champion under them, which the candidate is compared with; None where there is none.
        """
        champion = self._champion_at_start
        with self.steps.step("relevance model and spec") as progress:
            fitted = self.journal.once("relevance", lambda: self._refresh(progress))
            self.journal.once("spec", lambda: {"spec": self._save_spec()})
        with self.steps.step("probe, validate the champion"):
            probed = self.journal.once("probe", lambda: self._probe(window, fitted["relevance"]))
        if probed["changed"] and probed["accepted"] and champion is not None:
            triple = Candidate(champion.policy, probed["relevance"], probed["spec"])
            try:
                with ramp_lock(self.config.run):
                    settled = self._once_in_the_log(
                        "settle",
                        lambda evidence: self.registry.promote(
                            triple,
                            expected=champion.version,
                            evidence={**evidence, "probe": probed},
                            reason="the champion holds under the new relevance model or spec",
                        ),
                    )
                    carry_ramp(self.config.run, settled)
            except ConflictError as error:
                raise CycleError(
                    f"the champion was changed under the cycle of {self.week!r} ({error}): remove {self.journal.folder} to "
                    "begin anew from the present one"
                ) from error
            return settled.number
        if not probed["accepted"]:
            self._put_aside(fitted["relevance"], probed)
        return None if champion is None else champion.version

    def without_ranker(self) -> dict[str, Any] | None:
        """Close the cycle with a HOLD where neither the new relevance model may be used nor the present one answers."""
        probed = self.journal.result("probe")
        if probed["accepted"] or not probed.get("gone"):
            return None
        champion = self._champion_at_start
        assert champion is not None
        record: dict[str, Any] = {
            "week": self.week,
            "verdict": "hold",
            "reason": f"there is no ranker to train on: {probed['alarms'][-1]}",
            "failed": [],
            "mitigations": [],
            "mitigations_applied": self.plan["mitigations"],
            "candidate": champion.policy,
            **self._deployed,
            "relevance_fitted": False,
            "alarms": [*probed["alarms"]],
            "recovered": False,
            "traffic": self._traffic(),
            "labels": self.labels,
            "provenance": {},
            "policy": champion.policy,
        }
        return self.journal.once("record", lambda: record)

    def train(self, window: MinedWindow) -> str:
        """Train a candidate from the champion; returns its hash in the registry."""
        return str(self.journal.once("train", lambda: self._train(window))["policy"])

    def gate(self, candidate: str) -> dict[str, Any]:
        """Compare the candidate with the champion."""
        return self.journal.once("gate", lambda: self._gate(candidate))

    def decide(self, candidate: str, gate: dict[str, Any], champion: int | None) -> dict[str, Any]:
        """Write the decision into the registry, recover where the reward is suspected, and close the cycle."""
        deployed = self._deployed
        triple = Candidate(candidate, deployed["relevance"], deployed["spec"])
        wanted = "promote" if self.trusting else gate["verdict"]
        with ramp_lock(self.config.run):
            decided = self._once_in_the_log("candidate", lambda about: self._decide(triple, wanted, champion, gate, about))
            verdict = decided.verdict
            if verdict == "promote" and decided.previous is not None:
                begin_ramp(self.config.run, decided, self.config.ramp)
        if verdict == "reject":
            self._once_in_the_log(
                "quarantine", lambda evidence: self.registry.quarantine("policy", candidate, gate["reason"], evidence)
            )
        probed = self.journal.result("probe")
        record: dict[str, Any] = {
            "week": self.week,
            "verdict": verdict,
            "reason": decided.reason,
            "failed": gate["failed"],
            "mitigations": gate["mitigations"] if verdict == "reject" else [],
            "mitigations_applied": self.plan["mitigations"],
            "candidate": candidate,
            **deployed,
            "relevance_fitted": bool(self.journal.result("relevance")["fitted"]),
            "alarms": [*probed["alarms"]],
            "recovered": False,
            "traffic": self._traffic(),
            "labels": self.labels,
            "provenance": self.journal.result("train")["provenance"],
        }
        record["alarms"] += stuck([*self.history, record], self.config.recovery.alarm_after)
        after = self.config.recovery.suspect_after
        back = None if self.trusting else suspicious([*self.history, record], after, self._usable)
        if back is not None:
            record = self._go_back(record, back)
        present = self.registry.champion()
        record["policy"] = None if present is None else present.policy
        found = self.journal.once("record", lambda: record)
        self._forget()
        return found

    def _forget(self) -> None:
        """Remove what was mined of weeks that are over: it holds users' texts as they were typed."""
        keep = self.config.privacy.retention_weeks
        if keep is None:
            return
        names = [name for name in self.weeks if name <= self.week]
        for name in names[: max(0, len(names) - keep)]:
            shutil.rmtree(self._window(name).folder, ignore_errors=True)
            (self.config.run / "rejects" / f"{name}.ndjson").unlink(missing_ok=True)

    # What they are made of.

    def _refresh(self, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Fit the bundled model where it is due, and take in what the settings name that is not ours."""
        champion, opener = self._champion_at_start, self._opener
        folder = None if champion is None else self.registry.path(self.registry.artifact("relevance", champion.relevance))
        named_otherwise = folder is not None and not opener.is_current(folder)
        kept = folder is not None and not named_otherwise
        needed = opener.settings.needs_embedder
        if champion is not None and kept and not (needed and self.plan["relevance_due"]):
            return {"relevance": champion.relevance, "fitted": False}
        model = load_embedder(folder) if folder is not None else None
        fitted, before, alarm = False, self._before, ""
        if needed and (model is None or self.plan["relevance_due"]):
            seen = build_impressions([self._window(name) for name in before], self.documents)
            try:
                model, fitted = self.refit(in_memory(self.documents), seen, self.config.seed, progress), True
            except ValueError as error:
                alarm = f"the relevance model could not be fitted, the champion's stays: {error}"
                if champion is None:
                    raise
                if kept or model is None:
                    return {"relevance": champion.relevance, "fitted": False, "alarm": alarm}
        try:
            ranker = opener.build(model if needed else None)
        except (OSError, ValueError) as error:  # it does not answer, is not what is pinned, or gives two answers
            if champion is None:
                raise
            alarm = f"the ranker that the settings name cannot be used, the champion's stays: {error}"
            return {"relevance": champion.relevance, "fitted": False, "alarm": alarm, "refused": True}
        pins = ranker.about.get("pins")
        if champion is not None and named_otherwise and pins is not None and pins in self._barred_pins:
            alarm = "the ranker that the settings name is quarantined, the champion's stays: give a changed one a new version"
            return {"relevance": champion.relevance, "fitted": False, "alarm": alarm, "refused": True}
        about: dict[str, JSON] = {**ranker.about, "code_version": VERSION, "seed": self.config.seed}
        if fitted:
            about["weeks"] = before
        found: dict[str, Any] = {"relevance": self.registry.save("relevance", ranker.save, about).hash, "fitted": fitted}
        return {**found, **({"weeks": before} if fitted else {}), **({"alarm": alarm} if alarm else {})}

    @property
    def _barred_pins(self) -> set[Any]:
        """Rankers that are not ours and were quarantined, under whatever bundled model beside them."""
        barred = self._quarantined("relevance")
        return {a.metadata.get("pins") for a in self.registry.artifacts() if a.kind == "relevance" and a.hash in barred}

    def _save_spec(self) -> str:
        path = self.config.ranker.spec or self.config.spec
        spec = default_spec() if path is None else load_spec(path)
        return self.registry.save("spec", lambda folder: write_spec(folder, spec), {"spec_hash": spec.spec_hash}).hash

    def _probe(self, window: MinedWindow, relevance: str) -> dict[str, Any]:
        champion, spec = self._champion_at_start, self.journal.result("spec")["spec"]
        unfitted = self.journal.result("relevance").get("alarm")
        alarms: list[str] = [unfitted] if unfitted else []
        barred = self._quarantined("spec")
        if champion is not None and spec in barred:
            alarms.append(f"spec {spec[:12]} is quarantined: the champion's stays")
            spec = champion.spec
        new = {"relevance": relevance, "spec": spec}
        gone = None if champion is None or self._at_start is not None else self._gone
        if gone:
            alarms.append(gone)
        if champion is not None and (relevance, spec) == (champion.relevance, champion.spec):
            # The champion's own, and the settings' was refused already where it is gone.
            return {**new, "changed": False, "accepted": not gone, "gone": bool(gone), "alarms": alarms}
        deployment = self._deployment(relevance, spec)
        instances = with_documents(window.instances(), self.documents)
        found: dict[str, Any] = {}
        try:
            probed = probe(
                instances[: self.config.pipeline.probe_instances],
                retried(deployment.reward, self.config.pipeline.training.scoring),
            )
            found, problems = {"probe": asdict(probed)}, [] if self.trusting else _paid(probed)
            queries = [x.query.text for x in instances[: self.config.pipeline.probe_instances]]
            pairs = random_pairs(deployment, queries, seed=self.config.seed)
            found["random_pairs"] = [asdict(x) for x in pairs]
            alarms += [x.advice for x in pairs if x.advice]
        except ValueError as error:  # it scores what is no number, or there is nothing to probe with
            if champion is None:
                raise
            problems = [str(error)]
        if champion is not None and not problems and not self.trusting:
            gated = with_documents(window.for_gate(self.config.pipeline.gate_queries), self.documents)
            problems = champion_holds(
                self._policy(champion.policy),
                gated,
                self._at_start,
                deployment,
                self._judge,
                self.config.gate,
                max_new_tokens=self.config.pipeline.max_new_tokens,
            )
        if not problems:
            return {**new, "changed": True, "accepted": True, "alarms": alarms, **found}
        if champion is None:
            raise CycleError(
                f"the first relevance model fails its probe: {'; '.join(problems)}: raise eps in the fusion spec or bring more "
                f"log, and remove {self.journal.folder} to begin anew"
            )
        alarms.append(f"the new relevance model or spec is not used, the champion's stays: {'; '.join(problems)}")
        kept = {"relevance": champion.relevance, "spec": champion.spec}
        return {**kept, "changed": True, "accepted": False, "gone": bool(gone), "refused": new, "alarms": alarms, **found}

    def _put_aside(self, relevance: str, probed: Mapping[str, Any]) -> None:
        """Bar what was refused, unless the champion itself runs on it."""
        champion = self._champion_at_start
        assert champion is not None
        for kind in ("relevance", "spec"):
            hash = probed.get("refused", probed)[kind]
            if hash != champion.hashes[kind]:  # type: ignore[index]
                self._once_in_the_log(
                    f"refuse {kind}",
                    lambda evidence, kind=kind, hash=hash: self.registry.quarantine(  # type: ignore[misc]
                        kind, hash, probed["alarms"][-1], evidence
                    ),
                )

    def _train(self, window: MinedWindow) -> dict[str, Any]:
        instances = with_documents(window.instances(), self.documents)
        deployment, config = self._deployment(**self._deployed), self.config.pipeline
        provenance = Provenance(VERSION, window.span, deployment.spec.spec_hash, deployment.model_hash, self.config.seed)
        begin = self._start(window)
        policy = to_train(begin, config, self.config.seed)
        settings = mitigated(config.training, self._mitigations)
        with self.steps.step("train: semi-online MPO") as progress, open_sampler(config, policy) as engine:
            show, after_phase = training_progress(progress, settings.phases)
            report = train(
                policy,
                instances,
                deployment.reward,
                settings,
                self.journal.folder / "training",
                seed=self._week_seed,
                provenance=provenance.as_dict(),
                engine=engine,
                observe=after_phase,
                progress=show,
            )
        policy = merged(policy)
        about: dict[str, JSON] = {"provenance": provenance.as_dict(), "policy_hash": policy.policy_hash, "week": self.week}
        saved = self.registry.save("policy", policy.save, about)
        return {
            "policy": saved.hash,
            "provenance": provenance.as_dict(),
            "instances": len(instances),
            "settings": settings.model_dump(mode="json"),
            "training": {k: v for k, v in asdict(report).items() if k != "records"},
        }

    def _start(self, window: MinedWindow) -> Rewriter:
        """What training begins from, kept in the cycle's folder: the champion, shown the week's repairs; or a warm start."""
        folder, config, seed = self.journal.folder / "start", self.config, self.config.seed
        if self.journal.read("start-policy") is not None:
            return load_rewriter(folder)
        champion = self._champion_at_start
        if champion is None:
            with self.steps.step("warm start") as progress:
                windows = [self._window(name) for name in self.journal.result("mine")["windows"]]
                repaired, good = ([r for w in windows for r in w.reformulations()[i]] for i in (0, 1))
                policy, made = warm_start(
                    repaired, good, self.documents, config.pipeline.warm_start, seed=seed, model=config.model, progress=progress
                )
                about: dict[str, Any] = {"kinds": made.kinds, **asdict(made.fit)}
        else:
            policy, about = self._policy(champion.policy), {}
            if config.refresh.examples:
                with self.steps.step("fine-tune on the week's repairs") as progress:
                    repaired, good = window.reformulations()
                    examples = weekly_examples(repaired, good, self.documents, config.refresh.examples, seed=self._week_seed)
                    rate = shown_rate(config.refresh.learning_rate, self._mitigations)
                    about = asdict(
                        fine_tune(policy, examples, epochs=1.0, seed=self._week_seed, learning_rate=rate, progress=progress)
                    )
        policy.save(folder)
        self.journal.once("start-policy", lambda: {"policy_hash": policy.policy_hash, **about})
        return load_rewriter(folder)

    def _gate(self, candidate: str) -> dict[str, Any]:
        config = self.config.pipeline
        deployment, champion = self._deployment(**self._deployed), self._champion_at_start
        start = load_rewriter(self.journal.folder / "start")
        baseline = start if champion is None else self._policy(champion.policy)
        windows = [self._window(name) for name in self.journal.result("mine")["windows"]]
        frozen = read_evaluation_instances(self.config.frozen)
        searches = gate_searches(windows, self.documents, frozen, limit=config.gate_queries, seed=self.config.seed)
        if champion is None:
            searches = replace(searches, repaired=OF_A_WARM_START)
        if not searches.fresh:
            raise CycleError(f"the log of {self.week!r} gives no instance of a gate user: bring a longer log")
        try:
            policy = self._policy(candidate)
        except (RegistryError, RewriterError, OSError) as error:
            return refuse(str(error)).as_dict()
        with self.steps.step("gate") as progress:
            evaluation = evaluate(
                policy,
                baseline,
                searches,
                deployment,
                self._judge,
                max_new_tokens=config.max_new_tokens,
                recent=self._recent(),
                lineage=self._first(),
                reference=start,
                baseline_name="warm start" if champion is None else "champion",
                progress=progress,
            )
            result = run_gate(evaluation, self.config.gate, holds=self.plan["holds"])
        return result.as_dict()

    def _decide(
        self, triple: Candidate, verdict: str, champion: int | None, gate: dict[str, Any], evidence: dict[str, Any]
    ) -> Decision:
        evidence = {**evidence, **gate, "provenance": self.journal.result("train")["provenance"]}
        return decide(self.registry, triple, verdict, expected=champion, reason=gate["reason"], evidence=evidence)

    def _go_back(self, record: dict[str, Any], back: Mapping[str, str]) -> dict[str, Any]:
        """Put the previous relevance model and spec back under the champion, and bar the suspected ones."""
        under = [r for r in self.history if all(r[kind] == record[kind] for kind in back)]
        why = (
            f"{1 + sum(r['verdict'] == 'reject' for r in under)} candidates were rejected under relevance model "
            f"{record['relevance'][:12]} and spec {record['spec'][:12]}, none was promoted but under mitigations: the ones "
            "before are back in ranker and reward"
        )
        with ramp_lock(self.config.run):
            champion = self.registry.champion()
            if champion is None:
                return record
            triple = Candidate(champion.policy, back["relevance"], back["spec"])
            if triple.hashes != champion.hashes:  # else a rollback has put them back already
                back_again = self._once_in_the_log(
                    "recover",
                    lambda evidence: self.registry.promote(
                        triple, expected=champion.version, reason=why, evidence={**evidence, "failed": record["failed"]}
                    ),
                )
                carry_ramp(self.config.run, back_again)
        for kind in ("relevance", "spec"):
            if record[kind] != back[kind]:
                self._once_in_the_log(
                    f"suspect {kind}",
                    lambda evidence, kind=kind: self.registry.quarantine(kind, record[kind], why, evidence),  # type: ignore[misc]
                )
        return {**record, **back, "alarms": [*record["alarms"], why], "recovered": True}

    def _once_in_the_log(self, step: str, decide: Callable[[dict[str, Any]], Decision]) -> Decision:
        """Take a decision, unless the registry's log says that this cycle has taken it; returns it."""
        mark = {"cycle": self.week, "step": step}
        # Of a cycle of this week that was begun anew only what came since: the journal that was removed had decided otherwise.
        for decision in reversed(self.registry.decisions()[self.plan.get("log", 0) :]):
            found = decision.evidence
            if isinstance(found, Mapping) and all(found.get(k) == v for k, v in mark.items()):
                return decision
        return decide(dict(mark))

    # What they read.

    @property
    def _unseal(self) -> Unseal | None:
        keys = self.config.privacy.keys
        return None if keys is None else load_keys(keys).open_line

    @property
    def _mitigations(self) -> list[str]:
        return [] if self.trusting else self.plan["mitigations"]

    @cached_property
    def _champion_at_start(self) -> Champion | None:
        """The champion as it was when the cycle began, whatever this cycle has done since."""
        if (version := self.plan["champion"]) is None:
            return None
        candidate = next((d.candidate for d in self.registry.decisions() if d.number == version), None)
        if candidate is None:
            raise JournalError(
                f"{self.journal.folder / 'start.json'} names champion {version}, which the registry has none of: remove "
                f"{self.journal.folder} to begin anew"
            )
        return Champion(**candidate.hashes, version=version, fallback=None)

    @cached_property
    def _opener(self) -> RankerOpener:
        return RankerOpener(self.config.ranker, self.documents)

    @cached_property
    def _at_start(self) -> Deployment | None:
        """What ranked the week: the champion's relevance model and spec; None where its ranker has been replaced and is gone.

        Raises:
            ScorerUnavailableError: it does not answer at present: run the cycle again when it does.
        """
        champion = self._champion_at_start
        if champion is None:
            return self._of_settings
        folder = self.registry.path(self.registry.artifact("relevance", champion.relevance))
        try:
            return self._deployment(champion.relevance, champion.spec)
        except (ScorerUnavailableError, ScorerMismatchError, RegistryError, FileNotFoundError) as error:
            if self._opener.is_current(folder):
                raise
            self._gone = f"the champion's ranker, which the settings do not name any more, is gone: {error}"
            return None

    @cached_property
    def _of_settings(self) -> Deployment:
        """What the settings name, under the champion's bundled model and spec, or a cold start and the packaged one."""
        champion = self._champion_at_start
        model: LateInteraction | None = None
        if champion is not None:
            model = load_embedder(self.registry.path(self.registry.artifact("relevance", champion.relevance)))
        if model is None and self.config.ranker.needs_embedder:
            model = cold_start(in_memory(self.documents), seed=self.config.seed)
        path = self.config.ranker.spec or self.config.spec
        ranked_by_others = not self._opener.is_bundled
        spec = default_spec() if path is None or not ranked_by_others else load_spec(path)
        return Deployment(self._opener.build(model), spec)

    @property
    def _deployed(self) -> dict[str, str]:
        probed = self.journal.result("probe")
        return {"relevance": probed["relevance"], "spec": probed["spec"]}

    @cached_property
    def _judge(self) -> Judge:
        config = self.config
        return fitted_judge(
            config.labels.absolute(), config.documents.absolute(), config.seed, config.ranker, config.pipeline.judge
        )

    @property
    def _place(self) -> int:
        """Of this week among those with a log."""
        return list(self.weeks).index(self.week)

    @property
    def _before(self) -> list[str]:
        """The weeks before this one that the relevance model is fitted on."""
        return list(self.weeks)[max(0, self._place - self.config.refresh.relevance_windows) : self._place]

    @property
    def _week_seed(self) -> int:
        """A seed for this week's training: two weeks must not draw the same numbers."""
        return self.config.seed + 1000 * (1 + self._place)

    def _window(self, name: str) -> MinedWindow:
        return MinedWindow(self.config.run / "windows" / name, self._frozen_users)

    @property
    def _frozen_users(self) -> frozenset[str]:
        """Nobody, until there is a frozen set."""
        return self._in_frozen if self.config.frozen.is_file() else frozenset()

    @cached_property
    def _in_frozen(self) -> frozenset[str]:
        return frozen_users(self.config.frozen)

    def _policy(self, hash: str) -> Rewriter:
        return load_policy(self.registry, hash)

    def _deployment(self, relevance: str, spec: str) -> Deployment:
        return load_deployment(self.registry, self._opener, relevance, spec)

    def _quarantined(self, kind: str) -> set[str]:
        return {d.quarantined[1] for d in self.registry.decisions() if d.quarantined and d.quarantined[0] == kind}

    def _usable(self, record: Mapping[str, Any]) -> bool:
        """Whether the record's relevance model and spec are neither collected nor quarantined."""
        there = {(a.kind, a.hash) for a in self.registry.artifacts()}
        return all(
            (kind, record[kind]) in there and record[kind] not in self._quarantined(kind) for kind in ("relevance", "spec")
        )

    def _recent(self) -> list[Rewriter]:
        """Champions of the last weeks but the present one."""
        now, recent = self._champion_at_start, self.history[-self.config.recovery.recent_weeks :]
        return [] if now is None else recent_champions(self.registry, recent, now.policy)

    def _first(self) -> Rewriter | Absent:
        """The first champion, where it is not the present one."""
        now = self._champion_at_start
        if now is None:
            return Absent("there is no champion yet")
        return first_champion(self.registry, now.policy) or OF_NO_LINEAGE

    def _traffic(self) -> dict[str, Any]:
        """How the week's searches ended, of users with and without a rewriter."""
        return {
            name: {k: n / counts.total() for k, n in sorted(counts.items())} | {"searches": counts.total()}
            for name, counts in self._window(self.week).endings().items()
            if counts
        }


def _check_inputs(config: CycleConfig, weeks: Mapping[str, list[Path]], week: str, *, begins: bool) -> None:
    """Look at all that a cycle reads before anything is done.

    Args:
        config: Settings.
        weeks: Log files by week.
        week: Whose cycle it is.
        begins: Whether it makes a warm start, for which alone it needs the model that the settings name.
    """
    place = list(weeks).index(week)
    names = list(weeks)[max(0, place - config.refresh.relevance_windows) : place + 1]
    mined = [MinedWindow(config.run / "windows" / name) for name in names]
    files = [f for name, window in zip(names, mined, strict=True) if not window.is_there for f in weeks[name]]
    model = config.model if begins else None
    writes = [config.run, *([] if config.frozen.is_file() else [config.frozen.parent])]
    check_inputs(
        documents=config.documents,
        labels=config.labels,
        logs=files,
        spec=config.ranker.spec or config.spec,
        keys=config.privacy.keys,
        model=model,
        writes=writes,
        room=training_room(config.documents, files, model, converted=not config.ranker.needs_documents_in_memory),
    )


def _paid(found: ProbeResult) -> list[str]:
    return [f"{f.name} earns {f.reward:+.3f} nats of log R" for f in found.findings if f.paid]


def _catch_up(config: CycleConfig, promoted: Decision) -> None:
    """Begin, or carry on, the ramp of a promote whose cycle was killed before it could, and was never gone on with."""
    found = promoted.evidence if isinstance(promoted.evidence, Mapping) else {}
    week, step = found.get("cycle"), found.get("step")
    if not isinstance(week, str) or open_journal(config.run, week).read("record") is not None:
        return
    with ramp_lock(config.run):
        if step in ("settle", "recover"):
            carry_ramp(config.run, promoted)
        elif step == "candidate" and promoted.previous is not None:
            begin_ramp(config.run, promoted, config.ramp)


def fitted_judge(
    labels: Path, documents: Path, seed: int, ranker: RankerSettings = RankerSettings(), judge: JudgeConfig = TreeJudgeConfig()
) -> Judge:
    """The judge of a labels file (no folder); fitted once a process, and again when raters have added to the file.

    Args:
        labels: See `read_labels`.
        documents: See `open_documents`.
        seed: The one seed.
        ranker: Says whether the documents are in memory.
        judge: Which judge.
    """
    written = labels.stat().st_mtime_ns if labels.is_file() else 0
    return _fitted_judge(labels, documents, seed, written, ranker.needs_documents_in_memory, judge.model_dump_json())


_JUDGE: TypeAdapter[JudgeConfig] = TypeAdapter(JudgeConfig)


@lru_cache(maxsize=1)
def _fitted_judge(labels: Path, path: Path, seed: int, written: int, in_memory: bool, settings: str) -> Judge:
    documents: Documents = read_catalogue(path) if in_memory else DocumentStore.open(path)
    judge = build_judge(_JUDGE.validate_json(settings), documents)
    judge.fit(read_labels(labels, documents), seed=seed)
    return judge
