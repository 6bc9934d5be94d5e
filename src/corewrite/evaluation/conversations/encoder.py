"""A sentence encoder such as all-MiniLM-L6-v2: cosine of mean token vectors (Reimers & Gurevych 2019)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corewrite.relevance.backends import ScorerMismatchError
from corewrite.relevance.backends.calibration import ScoreCalibration
from corewrite.relevance.backends.folder import check_safetensors, check_size
from corewrite.storage.json_file import read_object

FloatArray = npt.NDArray[np.float64]

MINILM_CALIBRATION = ScoreCalibration(slope=15.6, offset=-10.3)
"""all-MiniLM-L6-v2, fitted as `BM25_CALIBRATION`."""
_MAX_TOKENS = 256
_BATCH = 32
_POOLING = Path("1_Pooling") / "config.json"


class EncoderRanker:
    """Cosine of a text's and a passage's vector (a `PassageRanker`), which finds every passage.

    A vector is the mean of the model's last hidden states over the tokens of a text, at most 256 of them, of length 1. The
    model is a `transformers` folder, with safetensors; no code of the folder is run.

    Args:
        folder: The model folder.
        passages: Texts of the pool.
        calibration: Makes a probability of a cosine.
        device: Where it runs, as torch names it.
        progress: Called with (passages done, of how many).

    Raises:
        FileNotFoundError: the folder is missing.
        ScorerMismatchError: it holds code or pickles, lacks weights, or pools in another way.
    """

    name = "minilm"

    def __init__(
        self,
        folder: Path,
        passages: Sequence[str],
        *,
        calibration: ScoreCalibration = MINILM_CALIBRATION,
        device: str = "cpu",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder: name the folder of a sentence encoder (docs/how-to/evaluate.md)")
        check_safetensors(folder)
        check_size(folder)
        _check_pooling(folder)
        transformers_logging.disable_progress_bar()  # ours shows the step
        local: dict[str, Any] = dict(trust_remote_code=False, local_files_only=True)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **local)
        self._model, loading = AutoModel.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
        # transformers fills them with random numbers and goes on; the pooler is not used.
        if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
            raise ScorerMismatchError(f"{folder} lacks weights such as {missing[0]} ({len(missing)} in all)")
        self._model.to(device).eval()
        self._device, self._calibration = device, calibration
        self._max_tokens = min(_MAX_TOKENS, int(getattr(self._model.config, "max_position_embeddings", _MAX_TOKENS)))
        self._passages = self._vectors(passages, progress)

    @property
    def calibration(self) -> ScoreCalibration:
        """See `PassageRanker.calibration`."""
        return self._calibration

    def scores(self, texts: Sequence[str]) -> FloatArray:
        """See `PassageRanker.scores`."""
        distinct = list(dict.fromkeys(texts))
        found = (self._vectors(distinct) @ self._passages.T).double().cpu().numpy()
        place = {text: row for row, text in enumerate(distinct)}
        return np.asarray(found[[place[text] for text in texts]], np.float64)

    def _vectors(self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None) -> torch.Tensor:
        """Unit vectors, float32 [texts, dims]."""
        if not texts:
            return torch.empty((0, self._model.config.hidden_size), device=self._device)
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        made: list[torch.Tensor] = []
        for start in range(0, len(order), _BATCH):
            some = [texts[i] for i in order[start : start + _BATCH]]
            tokens = self._tokenizer(some, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt")
            tokens = tokens.to(self._device)
            with torch.inference_mode():
                states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].float()
            mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            made.append(torch.nn.functional.normalize(mean, dim=1))
            progress(start + len(some), len(order))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(made)[back.to(self._device)]


def _check_pooling(folder: Path) -> None:
    """Refuse an encoder whose vector is something else than the mean of its tokens.

    Raises:
        ScorerMismatchError: it is.
    """
    if not (folder / _POOLING).is_file():
        return
    said = read_object(folder / _POOLING, ScorerMismatchError, "give the model folder as it was published")
    others = sorted(name for name, on in said.items() if name.startswith("pooling_mode_") and on is True)
    mode = said.get("pooling_mode", "mean")  # later versions say it in one word
    if others not in ([], ["pooling_mode_mean_tokens"]) or mode != "mean":
        raise ScorerMismatchError(
            f"{folder / _POOLING}: pooling by {', '.join(others) or repr(mode)[:50]}: only the mean of the tokens is read"
        )
