"""One file for every command: each reads its sections; what earlier versions wrote is read once more, with a warning."""

import warnings
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from corewrite.domain import ConfigError, Settings
from corewrite.domain.config_file import SECTIONS, read_config
from corewrite.domain.earlier_config import OldConfigWarning, as_written_now
from corewrite.domain.strict_yaml import read_yaml


class Training(Settings):
    phases: int = Field(default=6, ge=1)


class Gate(Settings):
    minimum_users: int = 40
    margins: dict[str, float] = Field(default_factory=dict)
    required_checks: tuple[str, ...] = ()


class Sampling(Settings):
    url: str


class Evaluation(Settings):
    gate_queries: int = 4000
    frozen_queries: int = 1000


class Ranker(Settings):
    spec: Path | None = None
    recall: dict[str, str] = Field(default_factory=dict)


class Trains(Settings):
    run: Path
    labels: Path
    seed: int = 0
    ranker: Ranker = Ranker()
    training: Training = Training()
    sampling: Sampling | None = None
    gate: Gate = Gate()
    evaluation: Evaluation = Evaluation()


class Server(Settings):
    port: int = 8080
    rollout: Path | None = None
    relevance: dict[str, str] | None = None
    log: dict[str, str | list[str]] = Field(default_factory=dict)
    arms: dict[str, float] = Field(default_factory=dict)


class Serves(Settings):
    run: Path
    documents: Path | None = None
    ranker: Ranker = Ranker()
    serve: Server = Server()


WHOLE = """\
run: runs/mine
labels: labels.parquet
ranker: {spec: fusion.yaml}
training: {phases: 2}
serve:
  port: 9000
  rollout: elsewhere.json
rollout: {alpha: 0.01}
"""


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "corewrite.yaml").write_text(text)
        return tmp_path / "corewrite.yaml"

    return write


def refusal(*args, **given) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read_config(*args, **given)
    return [line.rpartition("/")[2] if "corewrite.yaml" in line else line for line in str(error.value).splitlines()]


def test_every_command_reads_its_sections_of_the_same_file(file):
    path = file(WHOLE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trains, serves = read_config(path, Trains), read_config(path, Serves)
    assert trains == Trains(
        run="runs/mine", labels="labels.parquet", ranker=Ranker(spec="fusion.yaml"), training=Training(phases=2)
    )
    assert serves == Serves(
        run="runs/mine", ranker=Ranker(spec="fusion.yaml"), serve=Server(port=9000, rollout="elsewhere.json")
    )


def test_the_command_line_counts_before_the_file(file):
    found = read_config(file(WHOLE), Trains, run=Path("other"), seed=3, labels=None)
    assert (found.run, found.seed, found.labels) == (Path("other"), 3, Path("labels.parquet"))
    assert read_config(None, Serves, run=Path("r")) == Serves(run="r")
    assert read_config(file(""), Serves, run=Path("r")) == Serves(run="r")


def test_a_section_that_is_misspelt_is_refused_by_every_command(file):
    path = file(WHOLE + "trainning: {phases: 3}\n")
    assert refusal(path, Serves) == ["corewrite.yaml:9: trainning: unknown name; did you mean 'training'?"]
    assert refusal(path, Trains) == refusal(path, Serves)


def test_what_a_command_does_not_need_is_not_its_business(file):
    assert read_config(file(WHOLE.replace("phases: 2", "phases: 0")), Serves).serve.port == 9000


def test_what_is_missing_is_named(file):
    path = file("seed: 3\ntraining: {phases: 0}\n")
    assert refusal(path, Trains) == [
        f"corewrite.yaml:1: run: is needed: {SECTIONS['run']}",
        f"corewrite.yaml:1: labels: is needed: {SECTIONS['labels']}",
        "corewrite.yaml:2: training.phases: Input should be greater than or equal to 1 (got 0)",
    ]
    assert refusal(None, Trains, run=Path("r")) == [
        f"labels: is needed ({SECTIONS['labels']}): give the option, or --config FILE"
    ]


def test_a_cycle_s_earlier_file_is_read_and_the_warning_says_what_to_write(file):
    path = file(
        """\
run: r
labels: l
spec: fusion.yaml
frozen_queries: 50
pipeline:
  training: {phases: 3}
  server: {url: "http://x"}
  gate: {minimum_users: 20}
  gate_queries: 100
"""
    )
    with pytest.warns(OldConfigWarning) as said:
        found = read_config(path, Trains)
    assert found == Trains(
        run="r", labels="l", ranker=Ranker(spec="fusion.yaml"), training=Training(phases=3), sampling=Sampling(url="http://x"),
        gate=Gate(minimum_users=20), evaluation=Evaluation(gate_queries=100, frozen_queries=50),
    )  # fmt: skip
    message = str(said[0].message)
    assert "line 3: `spec` is `ranker.spec` now" in message and "line 6: `pipeline.training` is `training` now" in message
    assert "line 7: `pipeline.server` is `sampling` now" in message
    assert "line 9: `pipeline.gate_queries` is `evaluation.gate_queries` now" in message and str(path) in message


def test_training_s_earlier_file_is_read(file):
    with pytest.warns(OldConfigWarning, match="line 2: `server` is `sampling` now"):
        found = read_config(file("training: {phases: 3}\nserver: {url: u}\n"), Trains, run="r", labels="l")
    assert found.training.phases == 3 and found.sampling == Sampling(url="u")


def test_settings_that_have_other_names_now_are_read_and_the_warning_names_them(file):
    earlier = "pipeline:\n  training:\n    samples: 4\n    clip: 2\n    refresh_reference: no\n    phases: 0x3\n"
    tree = read_yaml(file(earlier), rewrite=lambda root: root)
    with pytest.warns(OldConfigWarning) as said:
        found = read_yaml(file(earlier), rewrite=lambda root: as_written_now(root, "c.yaml"))
    names = {"num_generations": 4, "max_grad_norm": 2, "sync_ref_model": False, "phases": 3}
    assert found.value == {"training": names} and list(tree.value) == ["pipeline"]
    message = str(said[0].message)
    assert "line 3: `training.samples` is `training.num_generations` now" in message
    assert "line 5: `training.refresh_reference` is `training.sync_ref_model` now" in message
    assert found.line(("training", "max_grad_norm")) == 4


def test_a_plugin_s_settings_keep_the_names_that_it_gives_them(file):
    for text, limit in (
        ("sampling: {kind: mine, drift_limit: 1}\n", "drift_limit"),
        ("sampling: {kind: server, drift_limit: 1}\n", "log_prob_mismatch_limit"),
        ("sampling: {drift_limit: 1}\n", "log_prob_mismatch_limit"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if limit.startswith("log") else "error", OldConfigWarning)
            found = read_yaml(file(text), rewrite=lambda root: as_written_now(root, "c.yaml"))
        assert limit in found.value["sampling"]


def test_a_server_s_earlier_file_is_read(file):
    path = file(
        "registry: /srv/run/registry\ndocuments: d.parquet\nport: 9000\nramp: /srv/ramp.json\nlog: {folder: f}\n"
        "engine: {kind: qdrant}\nrelevance: {kind: onnx}\n"
    )
    with pytest.warns(OldConfigWarning, match=r"line 1: `registry` is `run` now.*line 3: `port` is `serve.port` now"):
        found = read_config(path, Serves)
    assert found == Serves(
        run="/srv/run", documents="d.parquet", ranker=Ranker(recall={"kind": "qdrant"}),
        serve=Server(port=9000, rollout="/srv/ramp.json", log={"folder": "f"}, relevance={"kind": "onnx"}),
    )  # fmt: skip
    assert refusal(file("port: 1\nregistry: /srv/models\n"), Serves) == [
        "corewrite.yaml:2: registry: write `run: FOLDER` (the folder with `registry` in it)"
    ]


def test_keys_under_earlier_names_are_read_and_the_warning_says_the_new_ones(file):
    path = file("run: r\nserve:\n  port: 1\n  ramp: r.json\nramp: {alpha: 0.01}\n")
    with pytest.warns(OldConfigWarning) as said:
        found = read_config(path, Serves)
    assert found == Serves(run="r", serve=Server(port=1, rollout="r.json"))
    message = str(said[0].message)
    assert "line 4: `serve.ramp` is `serve.rollout` now" in message and "line 5: `ramp` is `rollout` now" in message
    path = file("run: r\nlabels: l\ngate:\n  margins: {commonest_rewrite: 0.1}\n  required_checks: [length, canaries]\n")
    with pytest.warns(OldConfigWarning) as said:
        gate = read_config(path, Trains).gate
    assert gate == Gate(margins={"top_rewrite_share": 0.1}, required_checks=["length", "prompt_injection"])
    message = str(said[0].message)
    assert "line 4: `gate.margins.commonest_rewrite` is `gate.margins.top_rewrite_share` now" in message
    assert "line 5: `gate.required_checks: canaries` is `prompt_injection` now" in message
    path = file("run: r\nserve:\n  arms: {none: 0.1, launch_2: 0.9}\n  log:\n    pair: [none, launch_2]\n")
    with pytest.warns(OldConfigWarning) as said:
        found = read_config(path, Serves)
    assert found.serve == Server(arms={"none": 0.1, "all_stages": 0.9}, log={"pair": ["none", "all_stages"]})
    message = str(said[0].message)
    assert "line 3: `serve.arms.launch_2` is `serve.arms.all_stages` now" in message
    assert "line 5: `serve.log.pair: launch_2` is `all_stages` now" in message


@pytest.mark.filterwarnings("ignore::corewrite.domain.earlier_config.OldConfigWarning")
def test_problems_in_an_earlier_file_keep_their_lines(file):
    assert refusal(file("run: r\nlabels: l\npipeline:\n  training:\n    phases: 0\n  gaet: {}\n"), Trains) == [
        "corewrite.yaml:5: training.phases: Input should be greater than or equal to 1 (got 0)",
        "corewrite.yaml:6: gaet: unknown name; did you mean 'gate'?",
    ]
    both = "run: r\nlabels: l\ntraining: {phases: 1}\npipeline:\n  training: {phases: 2}\n"
    assert refusal(file(both), Trains) == ["corewrite.yaml:5: not valid YAML: key 'training' stands twice: drop one"]
    assert refusal(file("run: r\nserve:\n  rollout: a\n  ramp: b\n"), Serves) == [
        "corewrite.yaml:4: not valid YAML: key 'rollout' stands twice: drop one"
    ]
    assert refusal(file("serve: 3\nport: 1\nrun: r"), Serves)[0].startswith("corewrite.yaml:1: serve: Input should be")
    assert refusal(file("run: r\nport: 1\nport: 2"), Serves) == [
        "corewrite.yaml:3: not valid YAML: key 'port' stands twice: drop one"
    ]


def test_what_is_no_mapping(file):
    assert refusal(file("- 1"), Serves, run="r")[0].startswith("corewrite.yaml:1: settings: must be a mapping")


def test_every_kind_of_this_file_s_settings_has_its_section():
    for kind in (Trains, Serves):
        assert set(kind.model_fields) <= set(SECTIONS)
    assert yaml.safe_load(WHOLE).keys() <= SECTIONS.keys()


def test_a_section_rewriter_is_today_s_but_for_what_the_server_s_earlier_file_had(file):
    def read(text):
        return read_yaml(file(text), rewrite=lambda root: as_written_now(root, "c.yaml")).value

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read("rewriter: {filters: []}\n") == {"rewriter": {"filters": []}}
        assert read("rewriter: {filtres: []}\n") == {"rewriter": {"filtres": []}}, "a filter misspelt is not passed over"
    with pytest.warns(OldConfigWarning, match="line 1: `rewriter.threads` is `serve.rewriter.threads` now"):
        assert read("rewriter: {threads: 2}\n") == {"serve": {"rewriter": {"threads": 2}}}
    with pytest.warns(OldConfigWarning):
        both = read("rewriter: {threads: 2, filters: []}\n")
    assert both == {"rewriter": {"filters": []}, "serve": {"rewriter": {"threads": 2}}}
