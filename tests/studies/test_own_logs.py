"""`corewrite train` on files: another causal LM, another spec, a killed run continued."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.registry import Registry

pytestmark = pytest.mark.e2e
SETTINGS = """
warm_start: {examples: 400, learning_rate_pretrained: 0.003}
training: {phases: 1, instances_per_phase: 60, num_generations: 4, minimum_gap: 0.001}
gate_queries: 200
watched_queries: 50
probe_instances: 100
"""


@pytest.fixture
def model(tmp_path):
    """A plain transformers folder that knows nothing of corewrite."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<eos>"], initial_alphabet=alphabet)
    core.train_from_iterator(["football highlights"] * 9, trainer)
    folder = tmp_path / "gpt"
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(core.get_vocab()), n_embd=32, n_layer=1, n_head=2, n_positions=256)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_train_on_own_files_with_another_model(run, model, tmp_path):
    (tmp_path / "config.yaml").write_text(SETTINGS)
    args = [
        "train", "--documents", run.folder / "documents.parquet", "--earlier-log", run.folder / "logs/week-0.ndjson.gz",
        "--log", run.folder / "logs/week-1.ndjson.gz", "--labels", run.folder / "labels.parquet", "--out", tmp_path / "own",
        "--config", tmp_path / "config.yaml", "--model", model, "--json",
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, args)), catch_exceptions=False)
    found = json.loads(result.stdout)
    assert result.exit_code == {"promote": 0, "hold": 3, "reject": 4}[found["gate"]["verdict"]]
    registry = Registry(tmp_path / "own" / "registry")
    assert registry.decisions()[0].verdict == found["gate"]["verdict"] and registry.verify_all() == []
    # Once more: the phase is there already, so training adds none, and the same candidate comes out.
    again = CliRunner().invoke(app, list(map(str, args)), catch_exceptions=False)
    assert json.loads(again.stdout)["gate"]["checks"] == found["gate"]["checks"]
    assert len(list((tmp_path / "own/training/phases").iterdir())) == 1
