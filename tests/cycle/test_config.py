import pytest

from corewrite.cycle import PipelineConfig
from corewrite.cycle.begin import _hash_settings
from corewrite.cycle.config import CycleConfig
from corewrite.cycle.config_sections import load_cycle_config, load_train_config
from corewrite.domain import ConfigError, sha256_json
from corewrite.domain.earlier_config import OldConfigWarning


def test_settings_from_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("training: {phases: 2, beta: 0.3}\ngate: {margins: {judge_ndcg: 0.01}}\n")
    found = load_train_config(file).pipeline
    assert (found.training.phases, found.training.beta, found.gate.margins.judge_ndcg) == (2, 0.3, 0.01)
    assert load_train_config(None).pipeline == PipelineConfig()
    file.write_text("")
    assert load_train_config(file).pipeline == PipelineConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {phasen: 2}", "training.phasen: unknown name; did you mean 'phases'"),
        ("training: {beta: -1}", "training.beta"),
        ("a: [", "not valid YAML"),
        ("- 1", "settings"),
    ],
)
def test_refusals_name_the_setting(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_train_config(tmp_path / "c.yaml")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_train_config(tmp_path / "nowhere.yaml")


TODAY = """
run: run
documents: documents.parquet
logs: logs
labels: labels.parquet
frozen: kept/frozen.parquet
seed: 4
ranker: {spec: fusion.yaml}
training: {phases: 3}
evaluation: {gate_queries: 200, frozen_queries: 50}
refresh: {relevance_every: 2}
serve: {port: 9000}
"""
BEFORE = """
run: run
documents: documents.parquet
logs: logs
labels: labels.parquet
frozen: kept/frozen.parquet
seed: 4
spec: fusion.yaml
frozen_queries: 50
pipeline: {training: {phases: 3}, gate_queries: 200}
refresh: {relevance_every: 2}
"""


def test_one_file_and_that_of_the_version_before_are_the_same_cycle(tmp_path):
    (tmp_path / "today.yaml").write_text(TODAY)
    (tmp_path / "before.yaml").write_text(BEFORE)
    today = load_cycle_config(tmp_path / "today.yaml")
    with pytest.warns(OldConfigWarning, match=r"`pipeline.training` is `training` now"):
        before = load_cycle_config(tmp_path / "before.yaml")
    assert today == before and today.pipeline.gate_queries == 200 and today.frozen_queries == 50
    # The hash that stands in a journal begun by the version before: a week that it left half finished goes on.
    plain = {
        "run": "run", "documents": "documents.parquet", "logs": "logs", "labels": "labels.parquet",
        "frozen": "kept/frozen.parquet", "spec": "fusion.yaml", "seed": 4, "refresh": {"relevance_every": 2},
        "frozen_queries": 50, "pipeline": {"training": {"phases": 3}, "gate_queries": 200},
    }  # fmt: skip
    assert sha256_json(today.model_dump(mode="json", exclude_defaults=True)) == sha256_json(plain)
    assert CycleConfig.model_validate(plain) == before


def test_settings_that_have_other_names_now_are_hashed_under_their_first(tmp_path):
    """A week begun by a version of before goes on."""
    sections = "training: {num_generations: 8, max_grad_norm: 0.5, sync_ref_model: false}\n"
    sections += "sampling: {url: u, model_folder: f, log_prob_mismatch_limit: 0.01}\ngate: {minimum_effective_users: 30}\n"
    (tmp_path / "today.yaml").write_text(TODAY.replace("training: {phases: 3}\n", sections))
    before = sections.replace("num_generations", "samples").replace("max_grad_norm", "clip")
    before = before.replace("sync_ref_model", "refresh_reference").replace("log_prob_mismatch_limit", "drift_limit")
    (tmp_path / "before.yaml").write_text(TODAY.replace("training: {phases: 3}\n", before))
    today = load_cycle_config(tmp_path / "today.yaml")
    with pytest.warns(OldConfigWarning, match=r"`sampling.drift_limit` is `sampling.log_prob_mismatch_limit` now"):
        assert load_cycle_config(tmp_path / "before.yaml") == today
    plain = today.model_dump(mode="json", exclude_defaults=True)
    plain["pipeline"]["training"] = {"samples": 8, "clip": 0.5, "refresh_reference": False}
    plain["pipeline"]["server"] = {"url": "u", "model_folder": "f", "drift_limit": 0.01}
    plain["pipeline"]["gate"] = {"minimum_users": 30}
    assert _hash_settings(today) == sha256_json(plain)


def test_what_does_not_go_together_names_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text(TODAY.replace("kept/frozen", "run/frozen") + "trainning: {}\n")
    with pytest.raises(ConfigError, match="did you mean 'training'"):
        load_cycle_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(TODAY.replace("kept/frozen", "run/frozen"))
    with pytest.raises(ConfigError, match=r"c\.yaml: frozen run/frozen.parquet lies in a folder that training reads"):
        load_cycle_config(tmp_path / "c.yaml")
