import pytest

from corewrite.domain import ConfigError
from corewrite.pipeline import PipelineConfig, load_config


def test_settings_from_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("training: {phases: 2, beta: 0.3}\ngate: {margins: {judge_ndcg: 0.01}}\n")
    found = load_config(file)
    assert (found.training.phases, found.training.beta, found.gate.margins.judge_ndcg) == (2, 0.3, 0.01)
    assert load_config(None) == PipelineConfig()
    file.write_text("")
    assert load_config(file) == PipelineConfig()


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
        load_config(tmp_path / "c.yaml")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "nowhere.yaml")
