"""GGUF files of tiny Llama models, written as llama.cpp's converter does."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    _, _, number, rest = stem.split(".", 3)
    return f"blk.{number}.{NAMES[rest]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rotary halves of each head side by side, as llama.cpp wants them."""
    half = weight.shape[0] // heads // 2
    halves = weight.reshape(heads, 2, half, -1)
    return np.stack([halves[:, 0], halves[:, 1]], 2).reshape(weight.shape)


def write_gguf(
    folder: Path, file: Path, *, quantize: gguf.GGMLQuantizationType | None = None, **changes
) -> dict[str, np.ndarray]:
    """Write the Llama of a transformers folder; the weights as they are read from the file, by their name in the folder.

    Args:
        folder: Where the model is.
        file: Where to.
        quantize: Type of the matrices; None: float32.
        changes: `layers`, `hidden`, `parts`, `architecture`: what the header says instead; `without`: a weight left out.
    """
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    config, arch = model.config, changes.get("architecture", "llama")
    out = gguf.GGUFWriter(file, arch)
    out.add_name("tiny")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(changes.get("hidden", config.hidden_size))
    out.add_block_count(changes.get("layers", config.num_hidden_layers))
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_vocab_size(config.vocab_size)
    if "parts" in changes:
        out.add_uint16("split.count", changes["parts"])
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(vocabulary)
    out.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    out.add_token_merges([" ".join(merge) for merge in merges])
    out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    out.add_unk_token_id(tokenizer.unk_token_id)
    read = {}
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}.get(name.split(".")[-2][:1])
        kept = interleaved(weight, heads) if "_proj" in name and heads else weight
        if name == changes.get("without"):
            continue
        if quantize is None or weight.ndim == 1:
            out.add_tensor(gguf_name(name), np.ascontiguousarray(kept))
            read[name] = weight
        else:
            packed = gguf.quantize(np.ascontiguousarray(kept), quantize)
            out.add_tensor(gguf_name(name), packed, raw_dtype=quantize)
            # A row is packed by itself, so rows may be put in another order before.
            read[name] = gguf.dequantize(gguf.quantize(weight, quantize), quantize)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return read
