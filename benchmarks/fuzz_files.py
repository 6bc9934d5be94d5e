"""Files that others may have written or changed: model folders, run folders, settings. See `fuzz_targets` for what a target is.

Each names the exceptions that its readers document; any other is a failure.
"""

import io
import json
import os
import re
import shutil
import tempfile
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_inputs import JSON_WORDS, NUMBERS, TEXTS, YAML_WORDS
from fuzz_targets import check_sayable, must, small_rewriter

from corewrite.capacity.profile import read_run
from corewrite.capacity.rates import PlanError
from corewrite.cli.cycle import _next_steps
from corewrite.cycle.config_sections import DataSections, load_cycle_config
from corewrite.cycle.mined_week import MinedWindow, first_thresholds
from corewrite.cycle.records import SHAPES
from corewrite.cycle.recovery import mitigations, stuck, suspicious, verdicts_in_a_row
from corewrite.cycle.status import load_history
from corewrite.deployment.explain import SearchSections
from corewrite.deployment.pins import load_pins
from corewrite.deployment.run_folder import documents_of_run
from corewrite.domain import Catalogue, ConfigError, Query
from corewrite.domain.config_file import read_config
from corewrite.experiment import RolloutConfig, RolloutState
from corewrite.experiment.rollout.file import RolloutFileError, load_rollout, save_rollout
from corewrite.gate.config import Margins
from corewrite.gate.margins_file import load_margins
from corewrite.registry import RegistryError
from corewrite.registry.content import manifest
from corewrite.relevance import LateInteraction, cold_start
from corewrite.rewriter import Rewriter, RewriterError, load_rewriter, new_small_decoder
from corewrite.rewriter.artifact import check_model
from corewrite.serving.settings import load_serve_config
from corewrite.storage.journal import Journal, JournalError, write_json
from corewrite.storage.model_files import UnsafeModelError, check_model_file
from corewrite.training import TrainingConfig
from corewrite.training.checkpoint import RunFolder
from corewrite.training.errors import ResumeError
from corewrite.training.optimise import new_optimizer
from corewrite.training.trained_state import unpack_state

_MODEL_WORDS = (
    b'"auto_map"', b'"architectures"', b'"model_type"', b'"llama"', b'"gpt2"', b'"bert"', b'"clip"', b'"t5"', b'"mamba"',
    b'"num_hidden_layers"', b'"vocab_size"', b'"weight_map"', b'"model.safetensors"', b'"../model.safetensors"',
    b'"/etc/passwd"',
    b'"a.bin"', b'"model-00001-of-00002.safetensors"', b'"_attn_implementation"', b'"owner/name"', b'"transformers_weights"',
    b'"fast_tokenizer_files"',
    b'"quantization_config"', b'"base_model_name_or_path"', b'"tokenizer_class"', b'"dtype"',
    b'"torch.float8"', b'"F64"', b'"I64"', b'"data_offsets"', b'"shape"', b'"__metadata__"', b'"custom_pipelines"',
    b'"rope_parameters"',
)  # fmt: skip
_STEP_WORDS = (
    b'"promote"', b'"hold"', b'"reject"', b'"w1"', b'"../w1"', b'"champion"', b'"alarms"', b'"stronger_kl"', b'"none"',
    b'"corewrite"', b'"running"', b'"complete"', b'"rolled back"', b'"windows"', b'"thresholds"', b'"threads"', b'"edges"',
    b'"state"', b'"config"', b'"stages"', b'"mitigations"', b'"verdict"', b'"0"', b'"optimizer_steps"', b'"environment"',
)  # fmt: skip


def _documents(n: int = 24) -> Catalogue:
    titles = tuple(f"{'red' if k % 2 else 'blue'} lion {'dance' if k % 3 else 'rice'}" for k in range(n))
    visual = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    return Catalogue(tuple(map(str, range(n))), titles, ("",) * n, visual, np.full(n, 5.0), np.ones(n))


# --- model folders ------------------------------------------------------------------------------------------------------------


class Models:
    """A file of an artifact's folder. The first byte chooses which; of a name that a file gets, that is all.

    The folder is hashed as the registry does it; one in twenty is loaded, where the folder as such may be.
    """

    words = _MODEL_WORDS + JSON_WORDS + NUMBERS + TEXTS
    cpu_seconds = 10.0
    limit = 40_000
    deep = 20
    policy = (
        "config.json", "model.safetensors.index.json", "model.safetensors", "tokenizer_config.json", "generation_config.json",
        "prompt_template.json", "tokenizer.json", "adapter_config.json",
    )  # fmt: skip
    relevance = ("relevance.safetensors", "vocabulary.txt", "ranker.json")

    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory()
        root = Path(self._made.name)
        self._policy, self._relevance, self._names = root / "policy", root / "relevance", root / "names"
        texts = ["red lion trailer", "how to cook rice"] * 4
        new_small_decoder(texts, seed=1, vocabulary=270, width=8, layers=1, heads=2).save(self._policy)
        cold_start(_documents()).save(self._relevance)
        weights = next(f.name for f in self._relevance.glob("*.safetensors"))
        self.relevance = (weights, *self.relevance[1:])
        self._names.mkdir()
        self._whole = root / "whole"
        for folder in (self._policy, self._relevance):
            shutil.copytree(folder, self._whole / folder.name)
        self.seeds = [bytes([k]) + self._first(name) for k, name in enumerate((*self.policy, *self.relevance))]
        self.seeds += [
            bytes([11]) + name for name in (b"model.safetensors", b"a b.json", b"x/../y", b"a\\b", b".hidden", b"a.py")
        ]

    def _first(self, name: str) -> bytes:
        made = {
            "model.safetensors.index.json": {"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors"}},
            "adapter_config.json": {"base_model_name_or_path": "x", "peft_type": "LORA"},
            "ranker.json": {"format": 1, "signals": {"a": {"kind": "kserve", "version": "1"}}, "recall": {"kind": "embedded"},
                            "fingerprints": {"a": {"texts": ["a"], "documents": ["b"], "scores": [0.5], "spread": 0,
                                                    "batch": 1}}},
        }  # fmt: skip
        found = [f for f in (self._policy / name, self._relevance / name) if f.is_file()]
        return found[0].read_bytes() if found else json.dumps(made[name]).encode()

    def close(self) -> None:
        self._made.cleanup()

    def __call__(self, data: bytes) -> str:
        mode, content = (data[0] % 12, data[1:]) if data else (0, b"")
        if mode == 11:
            return self._named(content)
        names, folder = (self.policy, self._policy) if mode < 8 else (self.relevance, self._relevance)
        name = names[mode if mode < 8 else mode - 8]
        file, whole = folder / name, self._whole / folder.name / name
        file.write_bytes(content)
        try:
            return self._read(folder, file, deep=zlib.crc32(data) % self.deep == 0)
        finally:
            shutil.copyfile(whole, file) if whole.is_file() else file.unlink()

    def _read(self, folder: Path, file: Path, *, deep: bool) -> str:
        try:
            found = manifest(folder)
        except RegistryError as error:
            check_sayable(error)
            return self._refused(folder, file, deep=deep)
        must(file.relative_to(folder).as_posix() in found, "a file that the hash does not cover")
        self._safe(folder, file, set(found))
        if not deep:
            return "hashed"
        return self._loaded(folder) if folder == self._policy else self._ranked(folder)

    def _refused(self, folder: Path, file: Path, *, deep: bool) -> str:
        try:
            check_model_file(file)
            must(False, "refused by the registry, and not by what rankers in folders ask")
        except UnsafeModelError as error:
            check_sayable(error)
        if deep and folder == self._policy:
            must(self._loaded(folder) == "does not load", "the registry refuses what is loaded")
        return "refused"

    def _safe(self, folder: Path, file: Path, hashed: set[str]) -> None:
        """By what is promised, written here once more: no code, nothing from outside."""
        if not file.name.endswith(".json"):
            return
        try:
            value = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            must(not file.name.endswith(("config.json", ".index.json")), "a configuration that cannot be read")
            return
        if file.name.endswith(".index.json"):
            for shard in value["weight_map"].values():
                must(os.path.realpath(folder / shard) == str((folder / shard).absolute()), f"weights elsewhere: {shard!r}")
                must(shard in hashed and shard.endswith(".safetensors"), f"weights that are not hashed: {shard!r}")
        if file.name.endswith("config.json"):
            left = [value]
            while left:
                now = left.pop()
                left += now.values() if isinstance(now, dict) else now if isinstance(now, list) else ()
                must(not (isinstance(now, dict) and now.get("auto_map")), "code of its own")

    def _loaded(self, folder: Path) -> str:
        for read in (check_model, load_rewriter):
            try:
                found = read(folder)
            except RewriterError as error:
                check_sayable(error)
                if read is load_rewriter:
                    return "does not load"
        must(isinstance(found, Rewriter) and len(found.policy_hash) == 64, "no rewriter")
        found.template.encode(Query("red lion"))
        return "loads"

    def _ranked(self, folder: Path) -> str:
        try:
            pins = load_pins(folder)
            model = LateInteraction.load(folder)
        except (RegistryError, ValueError, FileNotFoundError) as error:
            check_sayable(error)
            return "no ranker"
        must(len(model.vocabulary.words) == len(model.word) == len(model.weight), "words without a weight")
        must(pins is None or bool(pins.identity["recall"] is not None), "pins of nothing")
        return "ranker"

    def _named(self, name: bytes) -> str:
        file = self._names / os.fsdecode(name[:200]).replace("/", "∕")
        try:
            file.write_bytes(b"x")
        except (OSError, ValueError):
            return "no name"
        try:
            found = manifest(self._names)
            must(file.name.isprintable() and "\\" not in file.name, f"a name that others may read as a path: {file.name!r}")
            must(list(found) == [file.name], "hashed under another name")
            return "named"
        except RegistryError as error:
            check_sayable(error)
            return "refused"
        finally:
            file.unlink()


# --- run folders --------------------------------------------------------------------------------------------------------------

_HASH = "0" * 64
STEPS: dict[str, dict[str, Any]] = {
    "start": {"week": "w1", "settings": _HASH, "champion": 5, "relevance_due": True, "mitigations": [], "holds": 0, "log": 5,
              "code_version": "0.1.0", "threads": 2},
    "mine": {"windows": ["w0", "w1"], "span": "a/b", "searches": 7, "thresholds": {"edges": [1.5], "seconds": [2, 3.5]}},
    "relevance": {"relevance": _HASH, "fitted": True, "weeks": ["w0"], "alarm": "a"},
    "spec": {"spec": _HASH},
    "probe": {"relevance": _HASH, "spec": _HASH, "changed": True, "accepted": False, "gone": False, "alarms": ["so"],
              "refused": {"relevance": _HASH, "spec": _HASH}, "probe": {"findings": [], "instances": 60}},
    "train": {"policy": _HASH, "provenance": {"seed": 0}, "settings": TrainingConfig().model_dump(mode="json"), "instances": 3},
    "gate": {"verdict": "hold", "reason": "so", "users": 3, "failed": ["a"], "mitigations": ["lower_rate"], "checks": []},
    "record": {"week": "w1", "verdict": "reject", "reason": "so", "failed": ["a"], "mitigations": ["stronger_kl"],
               "mitigations_applied": [], "candidate": _HASH, "relevance": _HASH, "spec": _HASH, "policy": None,
               "relevance_fitted": False, "recovered": False, "alarms": [], "traffic": {}, "labels": {}, "provenance": {}},
}  # fmt: skip
_IDENTITY = {
    "config": TrainingConfig().model_dump(mode="json"),
    "instances": "i",
    "provenance": {"seed": 0},
    "seed": 4,
    "start": _HASH,
}


class Journals:
    """A file of a run folder; the first byte chooses which: a step, a mined week, the rollout, a training, margins."""

    words = _STEP_WORDS + JSON_WORDS + NUMBERS + TEXTS
    cpu_seconds = 3.0
    limit = 12_000
    deep = 1

    def __init__(self) -> None:
        self._made = tempfile.TemporaryDirectory()
        self._run = run = Path(self._made.name) / "run"
        self._training, self._record = run / "training", run / "training" / "phases" / "000" / "record.json"
        self._policy = small_rewriter()
        self._config = TrainingConfig()
        for step, value in STEPS.items():
            file = run / "cycles" / "w1" / f"{step}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, value)
        about = run / "windows" / "w1" / "about.json"
        about.parent.mkdir(parents=True)
        write_json(about, STEPS["mine"])
        save_rollout(run / "ramp.json", RolloutState(5, 4, 1e9), RolloutConfig())
        (run / "documents.json").write_text(json.dumps({"documents": "/data/documents.parquet"}))
        RunFolder(self._training, _IDENTITY).write_record(
            0, {"optimizer_steps": 5, "rollouts": 800, "pairs": 65, "instances_lost": {}, "seconds": {"score": 0.5}}
        )
        margins = run / "margins.yaml"
        margins.write_text(yaml.safe_dump({"margins": Margins().model_dump(mode="json"), "content_hash": _HASH}))
        checkpoint = self._training / "state.safetensors"
        place = {"step": 1, "shift": {"total": 0.5, "count": 2}, "sums": {}, "gradient_norms": {}, "clipped": 0}
        header = {
            "__metadata__": {"corewrite": json.dumps({"phase": 1, "cursor": place, "environment": {"threads": "1"}})},
            "policy.model.norm.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
        said = json.dumps(header).encode()
        said += b" " * (-len(said) % 8)
        checkpoint.write_bytes(len(said).to_bytes(8, "little") + said + np.ones(2, np.float32).tobytes())
        self._readers: list[tuple[Path, Callable[[Path], None], tuple[type[Exception], ...]]] = [
            *((run / "cycles" / "w1" / f"{step}.json", self._step, (JournalError,)) for step in STEPS),
            (about, self._mined, (JournalError,)),
            (run / "ramp.json", self._rollout, (RolloutFileError,)),
            (run / "documents.json", self._documents, (ConfigError,)),
            (self._training / "run.json", self._identity, (ResumeError,)),
            (self._record, self._records, (ResumeError,)),
            (checkpoint, self._checkpoint, (ResumeError,)),
            (margins, self._margins, (ValueError,)),
            (self._training / "run.json", self._plan, (PlanError, ValueError, FileNotFoundError)),
        ]
        self.seeds = [bytes([k]) + file.read_bytes() for k, (file, _, _) in enumerate(self._readers)]
        self._first = [seed[1:] for seed in self.seeds]

    def close(self) -> None:
        self._made.cleanup()

    def __call__(self, data: bytes) -> str:
        mode, content = (data[0] % len(self._readers), data[1:]) if data else (0, b"")
        file, read, refusals = self._readers[mode]
        file.write_bytes(content)
        try:
            read(file)
        except refusals as error:
            check_sayable(error)
            said = any(word in str(error) for word in (file.name, "weights", "checkpoint", "another"))
            must(said or isinstance(error, ValueError | FileNotFoundError), f"an error without its file: {str(error)!r:.300}")
            return "refused"
        finally:
            file.write_bytes(self._first[mode])
        return "read"

    def _step(self, file: Path) -> None:
        found = Journal(file.parent, SHAPES).result(file.stem)
        if file.stem == "record":
            history = load_history(self._run)
            must([r["week"] for r in history] == ["w1"], "a record of another week")
            verdicts_in_a_row(history, "reject"), mitigations(history), stuck(history, 1), suspicious(history, 1)
            {**found, "alarms": [*found["alarms"], "more"]}
            (
                found["policy"] is None or found["candidate"][:12],
                [text.strip() for text in _next_steps(self._run, found, again=True)],
            )
        elif file.stem == "start":
            must(found["champion"] is None or found["champion"] >= 1, "a champion before the first")
            must(found.get("log", 0) >= 0 and 1 <= (found.get("threads") or 1) <= 4096, "a log or threads below nothing")
            [name.strip() for name in found["mitigations"]]
        elif file.stem == "mine":
            for name in found["windows"]:
                folder = (self._run / "windows" / name).resolve()
                must(folder.parent == (self._run / "windows").resolve(), f"a week elsewhere: {name!r}")
        elif file.stem == "probe":
            [*found["alarms"]], found["relevance"][:12], found["spec"][:12]
            must(bool(found["accepted"]) or bool(found["alarms"][-1]) or True, "refused without a word")
            found.get("refused", found)["spec"][:12]
        elif file.stem == "gate":
            [name.strip() for name in (*found["failed"], *found["mitigations"], found["reason"])]
            must(found["verdict"] in ("promote", "hold", "reject"), "another verdict")
        elif file.stem == "train":
            found["policy"][:12], {**found["provenance"]}

    def _mined(self, file: Path) -> None:
        window = MinedWindow(file.parent)
        thresholds = window.thresholds
        must(isinstance(window.span, str), "no span")
        first_thresholds(self._run)
        if thresholds is not None:
            must(len(thresholds.seconds) == len(thresholds.edges) + 1, "thresholds that fit no bucket")

    def _rollout(self, file: Path) -> None:
        found = load_rollout(file)
        assert found is not None
        state, config = found
        must(0 <= state.share(config) <= 1, "a share of more than all")
        must(state.version_for("user", config) in (state.champion, state.previous), "a version of neither")

    def _documents(self, file: Path) -> None:
        must(isinstance(documents_of_run(file.parent), Path), "no path")

    def _identity(self, file: Path) -> None:
        threads = RunFolder(self._training, _IDENTITY).threads
        must(threads is None or 1 <= threads <= 4096, "threads that nobody has")

    def _records(self, file: Path) -> None:
        records = RunFolder(self._training, {}, writes=False).records()
        must(
            sum(r["optimizer_steps"] + r["rollouts"] + r["pairs"] + len(r["instances_lost"]) for r in records) >= 0,
            "less than 0",
        )

    def _checkpoint(self, file: Path) -> None:
        run = RunFolder(self._training, {}, writes=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = run.state()
        assert state is not None
        must(state.phase >= 0 and state.cursor.step >= 0, "a place before the first")
        unpack_state(state.tensors, self._policy, new_optimizer(self._policy, self._config), None)

    def _margins(self, file: Path) -> None:
        must(isinstance(load_margins(file), Margins), "no margins")

    def _plan(self, file: Path) -> None:
        read_run(self._training)


# --- settings -----------------------------------------------------------------------------------------------------------------

_CONFIGS = (
    """\
run: runs/a
documents: documents.parquet
logs: logs
labels: labels.parquet
frozen: frozen.parquet
seed: 3
ranker:
  signals:
    relevance: {kind: kserve, url: "http://localhost:8000", model: m, version: "1", inputs: {text: text, s: document.seconds}}
    picture: {kind: clip, folder: clip, pin: "v2:0", calibration: {slope: 2.0, offset: -1}}
  recall: {kind: qdrant, url: "http://localhost:6333", collection: "videos-{relevance}", timeout_ms: 40}
training: {phases: 3, num_generations: 8, beta: 0.1, scoring: {batch: 64}}
gate: {margins: {judge_ndcg: 0.01}}
rollout: {stages: [{share: 0}, {share: 0.01}, {share: 1}]}
privacy: {retention_weeks: 6}
""",
    """\
run: runs/a
documents: documents.parquet
serve:
  workers: 2
  host: 0.0.0.0
  hosts: [a.example]
  deadlines: {recall: 25, rawrank: 35, finerank: 50}
  arms: {none: 0.1, all_stages: 0.9}
  api_key_env: COREWRITE_KEY
  cache: {redis_url: "redis://localhost", redis_secret_env: SECRET}
  log: {folder: served, salt_env: COREWRITE_SALT, counterfactual_share: 1, pair: [none, all_stages]}
  limits: {in_flight: 64, body_bytes: 65536}
""",
    """\
run: "runs/a"
warm_start:
    epochs: 1
sampling: {base_url: 'http://localhost:8000', model_folder: policies, reload: weights}
judge:
    kind: python
    factory: "own:judge"
    version: '1'
evaluation: {gate_queries: 200}
experiment: {}
""",
    "registry: runs/a/registry\nspec: fusion.yaml\nworkers: 2\ndeadlines: {recall: 30}\n",
    "pipeline: {training: {beta: 0.2}, server: {base_url: 'http://a', model_folder: b}, gate_queries: 200}\nrun: a\n",
    '{"run": "a", "documents": "b", "logs": "c", "labels": "d", "frozen": "e", "ranker": {"recall": {"kind": "embedded"}}}',
)
_CONFIG_WORDS = tuple(
    word.encode()
    for word in (
        "run", "documents", "logs", "ranker", "signals", "recall", "kind", "kserve", "onnx", "cross_encoder", "clip", "python",
        "embedded", "column", "qdrant", "opensearch", "redis", "url", "folder", "pin", "version", "inputs", "document.seconds",
        "training", "sampling", "gate", "margins", "rollout", "stages", "serve", "cache", "log", "limits", "arms",
        "ramp", "calibration", "pipeline", "registry", "workers", "http://[::1", "http://user:pw@a", "a:b", "http://a:99999",
    )
)  # fmt: skip


class Configs:
    """`corewrite.yaml`, as the commands read it; seven in eight with what is no UTF-8 replaced."""

    words = _CONFIG_WORDS + YAML_WORDS + NUMBERS + TEXTS
    cpu_seconds = 3.0
    limit = 6_000
    deep = 0

    def __init__(self) -> None:
        self.seeds = [text.encode() for text in _CONFIGS]
        self._made = tempfile.TemporaryDirectory()
        self._path = Path(self._made.name) / "corewrite.yaml"
        self._readers: list[Callable[[Path], Any]] = [
            load_cycle_config, load_serve_config, lambda p: read_config(p, SearchSections),
            lambda p: read_config(p, DataSections),
        ]  # fmt: skip

    def close(self) -> None:
        self._made.cleanup()

    def __call__(self, data: bytes) -> str:
        if zlib.crc32(data) % 8:
            data = data.decode("utf-8", "replace").encode()
        self._path.write_bytes(data)
        read = self._readers[zlib.crc32(data) // 8 % len(self._readers)]
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = read(self._path)
        except ConfigError as error:
            for warning in said:
                check_sayable(ValueError(str(warning.message)))
            return self._refused(error, data)
        must(found == type(found).model_validate(found.model_dump(by_alias=True)), "settings that are others when written out")
        return "settings"

    def _refused(self, error: ConfigError, data: bytes) -> str:
        message = str(error)
        check_sayable(error)
        must(all(unicodedata.category(c) != "Cc" or c == "\n" for c in message), f"control characters: {message!r:.300}")
        try:
            lines = 1 + len(io.StringIO(data.decode(), newline=None).read().splitlines())
        except UnicodeDecodeError:
            must("cannot read the settings" in message, f"another error: {message!r:.300}")
            return "not UTF-8"
        for line in message.split("\n"):
            if line.startswith(f"{self._path}:"):
                place = re.match(r":(\d+): \S", line.removeprefix(str(self._path)))
                must(
                    place is None or int(place[1]) <= max(lines, 1 + data.count(b"\n")),
                    f"a line that is not there: {line!r:.200}",
                )
        must(str(self._path) in message or "documents" in message, f"an error without its file: {message!r:.300}")
        return "refused"
