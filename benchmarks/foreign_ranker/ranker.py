"""A trained ranker, and the ranker bound to a catalogue."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from corewrite.domain import Catalogue, sha256_chunks

from .network import CrossEncoder, NetworkConfig
from .tokens import PAD, document_texts, encode

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_TEXT = 128
"""Sub-words of a text that are read at most."""
MAX_DOCUMENT = 125
"""Sub-words of a document that are read at most."""
_PAIRS = 1024
_LOWEST = 1e-6


def build_pictures(catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """What the ranker sees of each document, [documents, v]; all zero where there is no picture."""
    return np.nan_to_num(catalogue.visual)


@dataclass(frozen=True, eq=False)
class ForeignRanker:
    """The ranker that plays the user's own: a trained cross-encoder with its sub-words and its calibration.

    Attributes:
        network: Answers logits that are calibrated already.
        tokenizer: Its sub-words.
    """

    network: CrossEncoder
    tokenizer: Tokenizer

    @property
    def config(self) -> NetworkConfig:
        """Sizes of the network."""
        return self.network.config

    @cached_property
    def model_hash(self) -> str:
        """Content hash over sub-words, sizes and weights."""
        weights = self.network.state_dict()
        head = json.dumps([self.tokenizer.to_str(), asdict(self.config)], sort_keys=True).encode()
        return sha256_chunks([head, *(weights[name].numpy().tobytes() for name in sorted(weights))])

    def bind(self, catalogue: Catalogue, *, use_picture: bool = True) -> "BoundForeignRanker":
        """The ranker over a catalogue; without pictures where `use_picture` is False."""
        return BoundForeignRanker(self, catalogue, use_picture)

    def save(self, folder: Path) -> None:
        """Write weights, sizes and sub-words."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.network.state_dict(), folder / "ranker.safetensors")
        (folder / "ranker.json").write_text(json.dumps(asdict(self.config), indent=1), "utf-8")
        self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, folder: Path) -> "ForeignRanker":
        """Read what `save` wrote."""
        config = NetworkConfig(**json.loads((folder / "ranker.json").read_text("utf-8")))
        network = CrossEncoder(config)
        network.load_state_dict(load_file(folder / "ranker.safetensors"))
        return cls(network.eval(), Tokenizer.from_file(str(folder / "tokenizer.json")))


class BoundForeignRanker:
    """Scores the documents of one catalogue in this process (a `RelevanceScorer`).

    Documents are read once; a pair costs the network alone. What ONNX Runtime and the servers answer is the same.
    """

    def __init__(self, ranker: ForeignRanker, catalogue: Catalogue, use_picture: bool) -> None:
        self._ranker = ranker
        self._documents = torch.from_numpy(encode(ranker.tokenizer, document_texts(catalogue), MAX_DOCUMENT))
        self._pictures = torch.from_numpy(build_pictures(catalogue) * np.float32(use_picture))
        self._use_picture = use_picture

    @property
    def model_hash(self) -> str:
        """Content hash of the ranker, and whether it sees pictures."""
        return self._ranker.model_hash if self._use_picture else f"{self._ranker.model_hash}-no-picture"

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `corewrite.relevance.RelevanceScorer.score`."""
        rows = np.asarray(rows, np.int64)
        out = np.zeros(rows.shape)
        at, column = np.nonzero(rows >= 0)
        if len(at) == 0:
            return out
        said = encode(self._ranker.tokenizer, texts, MAX_TEXT)
        logits = np.empty(len(at))
        for start in range(0, len(at), _PAIRS):
            part = slice(start, start + _PAIRS)
            text = said[at[part]]
            text = torch.from_numpy(text[:, : max(1, int((text != PAD).sum(1).max()))])
            row = torch.from_numpy(rows[at[part], column[part]])
            with torch.inference_mode():
                logits[part] = self._ranker.network.score(text, self._documents[row], self._pictures[row]).numpy()
        out[at, column] = np.clip(1 / (1 + np.exp(-logits)), _LOWEST, 1 - _LOWEST)
        return out
