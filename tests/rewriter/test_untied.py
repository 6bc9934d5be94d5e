"""Folders for servers that reload weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from corewrite.domain import Query
from corewrite.rewriter import Rewriter, RewriterError, load_rewriter, save_export, save_untied, with_adapter


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


def check(rewriter: Rewriter, folder: Path, query: str) -> None:
    before, tied = rewriter.policy_hash, rewriter.model.config.tie_word_embeddings
    ids = rewriter.template.encode(Query(query))
    expected = logits(rewriter.model, ids)
    save_untied(rewriter, folder)
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    assert config["tie_word_embeddings"] is False and "lm_head.weight" in weights
    attention = rewriter.model.config._attn_implementation
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert torch.equal(logits(model.eval(), ids), expected)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.backend_tokenizer.to_str() == rewriter.tokenizer.backend_tokenizer.to_str()
    # The rewriter is as it was.
    assert rewriter.policy_hash == before and rewriter.model.config.tie_word_embeddings is tied
    assert (rewriter.model.get_output_embeddings().weight is rewriter.model.get_input_embeddings().weight) is tied


def test_logits_of_a_trained_decoder_are_bitwise_the_same(trained: Rewriter, tmp_path: Path) -> None:
    assert trained.model.config.tie_word_embeddings
    check(trained, tmp_path / "a", "rice")


def test_logits_of_other_models_are_bitwise_the_same(plain_folder: Path, tmp_path: Path) -> None:
    check(load_rewriter(plain_folder), tmp_path / "a", "rice and eggs")


def test_the_head_moves_alone(trained: Rewriter, tmp_path: Path) -> None:
    """What a server that keeps its old head gets wrong can now be told from the embeddings."""
    save_untied(trained, tmp_path / "a")
    weights = load_file(tmp_path / "a" / "model.safetensors")
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert sum(w.numel() for w in weights.values()) == trained.parameters + weights["lm_head.weight"].numel()


def test_an_export_is_no_rewriter(trained: Rewriter, tmp_path: Path) -> None:
    save_export(trained, tmp_path / "a", "vllm")
    said = json.loads((tmp_path / "a" / "corewrite_export.json").read_text())
    assert said == {"for": "vllm", "policy": trained.policy_hash}
    with pytest.raises(RewriterError, match=r"is an export, by its corewrite_export\.json: name the rewriter"):
        load_rewriter(tmp_path / "a")


def test_an_adapter_has_to_be_merged(trained: Rewriter, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    with pytest.raises(RewriterError, match="save merged"):
        save_untied(with_adapter(trained, rank=2, alpha=4, seed=0), tmp_path / "a")
    assert not (tmp_path / "a").exists()
