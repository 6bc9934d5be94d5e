"""The ranker as an ONNX folder: `model.onnx` and `tokenizer.json`."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch

from .ranker import ForeignRanker
from .tokens import CLS, SEP

_OPSET = 18
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "picture")


def export_onnx(ranker: ForeignRanker, folder: Path) -> Path:
    """Write the ranker for ONNX Runtime.

    Inputs: `input_ids`, `attention_mask` and `token_type_ids`, int64 [pairs, tokens], of text and document encoded together by
    `tokenizer.json`; `picture`, float32 [pairs, v]. Output: `score`, float32 [pairs, 1], a calibrated logit.

    Args:
        ranker: What is exported.
        folder: Made if it is not there; files of an earlier export are overwritten.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = torch.tensor([[CLS, 5, 6, SEP, 7, 8, SEP], [CLS, 5, SEP, 7, 8, SEP, 0]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0]])
    example = (ids, (ids != 0).long(), types, torch.ones(2, ranker.config.picture))
    free = {name: {0: "pairs", 1: "tokens"} for name in _INPUTS[:3]} | {name: {0: "pairs"} for name in ("picture", "score")}
    target = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself: it is the one that needs no further package
        torch.onnx.export(
            _Column(ranker).eval(), example, str(target), dynamo=False, opset_version=_OPSET, input_names=list(_INPUTS),
            output_names=["score"], dynamic_axes=free,
        )  # fmt: skip
    onnx.checker.check_model(str(target))
    ranker.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def export_versions(versions: Mapping[str, ForeignRanker], repository: Path) -> Path:
    """Write rankers as the versions 1/, 2/, ... of one repository, as `serve` takes it; returns the repository."""
    for version, ranker in versions.items():
        export_onnx(ranker, repository / version)
    return repository


class _Column(torch.nn.Module):
    """The network with its logits as a column, as servers shape an output."""

    def __init__(self, ranker: ForeignRanker) -> None:
        super().__init__()
        self.network = ranker.network

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor, picture: torch.Tensor
    ) -> torch.Tensor:
        return self.network(input_ids, attention_mask, token_type_ids, picture)[:, None]
