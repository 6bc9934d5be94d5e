"""`corewrite model` as a user meets it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from corewrite.cli.main import app
from corewrite.domain import Query
from corewrite.rewriter import load_rewriter, new_small_decoder


def call(*args):
    return CliRunner().invoke(app, ["model", *map(str, args)], catch_exceptions=False, env={"COLUMNS": "160"})


def said(result):
    return " ".join(result.output.split())


@pytest.fixture
def rewriter(tmp_path):
    made = new_small_decoder(["cat show", "dog race"] * 9, seed=0, vocabulary=300, width=32, heads=2)
    made.save(tmp_path / "rewriter")
    return made


@pytest.fixture
def plain(rewriter, tmp_path):
    """A folder that is no rewriter yet, with more positions."""
    folder = tmp_path / "plain"
    rewriter.model.config.max_position_embeddings = 320
    rewriter.model.save_pretrained(folder)
    rewriter.tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_is_imported(plain, tmp_path):
    options = ("--prompt-tokens", 40, "--home-locale", "de", "--json")
    found = json.loads(call("import", plain, "--out", tmp_path / "out", *options).stdout)
    made = load_rewriter(tmp_path / "out")
    assert found["policy"] == made.policy_hash and found["parameters"] == made.parameters and found["format"] == "safetensors"
    assert found["bytes"] == sum(f.stat().st_size for f in (tmp_path / "out").iterdir()) > 4 * made.parameters
    assert found["template"]["max_tokens"] == made.template.config.max_tokens == 40 and found["template"]["home_locale"] == "de"
    assert found["paths"] == {"packed": True, "shared_prefix": True, "reasons": []}
    memory = found["memory"]
    assert memory["weights"] == 4 * made.parameters < memory["serving"] < memory["warm_start"]
    assert memory["training"] > 5 * memory["weights"] and memory["example_tokens"] == 32
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_template_is_chosen(plain, tmp_path):
    (tmp_path / "own.jinja").write_text("{% for t in titles %}{{ t }}\n{% endfor %}{{ queries|join(' ') }}\n{{ query }}\n")
    for name, kind in (("few_shot", "few_shot"), (tmp_path / "own.jinja", "jinja")):
        out = tmp_path / kind
        found = json.loads(call("import", plain, "--out", out, "--template", name, "--prompt-tokens", 200, "--json").stdout)
        config = load_rewriter(out).template.config
        assert found["template"]["kind"] == config.kind == kind and config.max_tokens == 200
        assert found["num_added_tokens"] == 0 and found["policy"] == load_rewriter(out).policy_hash
    missing = call("import", plain, "--out", tmp_path / "x", "--template", "fewshot")
    assert missing.exit_code == 1 and "--template fewshot: no such kind and no such file" in said(missing)
    chat = call("import", plain, "--out", tmp_path / "x", "--template", "chat")
    assert chat.exit_code == 1 and "has no chat template: choose few_shot, jinja or reserved" in said(chat)


def test_what_is_said_of_an_import(plain, tmp_path):
    result = call("import", plain, "--out", tmp_path / "out")
    text = said(result)
    assert result.exit_code == 0 and "LlamaForCausalLM" in text and "stored as F32 100%" in text
    assert "packed rows yes, shared prefixes yes" in text and "prompt 256 tokens at most" in text
    assert "warm start" in text and "micro-batches of 8,192 tokens; LoRA" in text


def test_an_export_computes_the_same_and_is_no_rewriter(rewriter, tmp_path):
    found = json.loads(call("export", tmp_path / "rewriter", "--for", "vllm", "--out", tmp_path / "base", "--json").stdout)
    assert found["policy"] == rewriter.policy_hash and found["for"] == "vllm"
    assert "lm_head.weight" in load_file(tmp_path / "base" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    ids = torch.tensor([rewriter.template.encode(Query("cat show"))])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, rewriter.model(ids).logits)
    again = call("import", tmp_path / "base", "--out", tmp_path / "again")
    assert again.exit_code == 1 and "is an export" in said(again) and not (tmp_path / "again").exists()
    assert "no registry" in said(call("export", tmp_path / "rewriter", "--for", "vllm", "--out", tmp_path / "second"))


def test_nothing_is_written_over(plain, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    for args in (("import", plain), ("export", tmp_path / "rewriter", "--for", "vllm")):
        result = call(*args, "--out", tmp_path / "out")
        assert result.exit_code == 1 and "is there already and not an empty folder" in said(result)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(plain, tmp_path):
    (tmp_path / "out").mkdir()
    assert call("import", plain, "--out", tmp_path / "out").exit_code == 0
    assert load_rewriter(tmp_path / "out").parameters


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("import", "nowhere"), 1, "nowhere: no such file or folder: give a GGUF file or a transformers model folder"),
        (("import", "rewriter"), 1, "rewriter is a rewriter already"),
        (("import", "plain", "--prompt-tokens", 300), 1, "give at most 256"),
        (("import", "plain", "--prompt-tokens", 3), 2, "16"),
        (("import", "plain", "--example-tokens", 3), 2, "4"),
        (("import", "text.gguf"), 1, "text.gguf is no GGUF file"),
        (("export", "plain.gguf", "--for", "vllm"), 1, "corewrite model import plain.gguf --out FOLDER"),
        (("export", "rewriter", "--for", "ollama"), 2, "vllm"),
        (("export", "rewriter"), 2, "--for"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_fix(args, code, message, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.gguf").write_text("hello")
    result = call(*args, "--out", "out")
    assert result.exit_code == code and message in said(result) and "Traceback" not in result.output
    assert not Path("out").exists()


def test_a_failed_write_leaves_nothing(plain, tmp_path, monkeypatch):
    def fail(self, folder):
        folder.mkdir()
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("corewrite.rewriter.Rewriter.save", fail)
    before = sorted(tmp_path.iterdir())
    result = call("import", plain, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "MiB are left" in said(result) and sorted(tmp_path.iterdir()) == before


def test_gguf_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    result = call("import", tmp_path / "a.gguf", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "pip install 'corewrite[gguf]'" in said(result)
