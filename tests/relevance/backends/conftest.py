"""A catalogue of four documents and tiny models, made here: nothing is downloaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from corewrite.domain import Catalogue

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "lion", "dance", "rice", "cook", "snow", "how", "to"]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    titles = ("red lion", "lion dance", "how to cook rice", "snow")
    visual = np.array([[3, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    return Catalogue(("a", "b", "c", "d"), titles, ("", "dance", "", ""), visual, np.ones(4), np.ones(4))


def word_tokenizer() -> Tokenizer:
    """[CLS] text [SEP] document [SEP], a word a token."""
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return core


def fast_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | special
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), model_input_names=inputs, **names)


def small_bert(labels: int = 1) -> BertForSequenceClassification:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def cross_encoder_folder(tmp_path) -> Path:
    small_bert().save_pretrained(tmp_path / "bert")
    fast_tokenizer().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def clip_folder(tmp_path) -> Path:
    torch.manual_seed(5)
    text = CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, projection_dim=4, bos_token_id=2, eos_token_id=3, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
        projection_dim=4, initializer_range=0.5,
    )  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=4)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    fast_tokenizer(bos_token="[CLS]", eos_token="[SEP]").save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size=8).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


WEIGHTS = np.array([100, 7, 0, 0, 1, -2, 0.5, 3, -1, 0.25, 2, -0.5], np.float32)
"""Of each word in the ONNX model: padding would tell."""


@pytest.fixture
def onnx_folder(tmp_path) -> Path:
    """logit = sum of the words' weights, those of the document counted thrice."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, ["pairs", "tokens"]) for n in names]
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["w"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Cast", ["token_type_ids"], ["type"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["type", "two"], ["twice"]),
        helper.make_node("Add", ["twice", "one"], ["count"]),
        helper.make_node("Mul", ["w", "mask"], ["masked"]),
        helper.make_node("Mul", ["masked", "count"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "axis"], ["logits"], keepdims=1),
    ]
    constants = {"weights": WEIGHTS, "one": np.float32(1), "two": np.float32(2), "axis": np.array([1], np.int64)}
    graph = helper.make_graph(
        nodes, "ranker", inputs, [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["pairs", 1])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )  # fmt: skip
    folder = tmp_path / "onnx"
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
