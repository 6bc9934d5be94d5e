"""A text-image model of `transformers` (CLIP, Radford et al. 2021): the text against the picture's embedding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corewrite.domain import Documents, sha256_chunks, sha256_json
from corewrite.domain.extras import from_extra
from corewrite.relevance.backends.calibration import LOWEST, ScoreCalibration
from corewrite.relevance.backends.errors import ScoreError, ScorerMismatchError
from corewrite.relevance.backends.folder import check_pin, check_safetensors, check_size

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


class ClipEncoder:
    """The two towers of a `CLIPModel`; weights come from safetensors in a local folder, and no code of the folder is run.

    Args:
        folder: The model folder, with tokenizer and, for pictures, image processor.
        pin: `folder_hash` of the accepted model.
        batch: Texts or pictures in one forward pass at most.
        device: Where it runs, as torch names it.

    Raises:
        FileNotFoundError: the folder is missing.
        ScorerMismatchError: the folder is not the pinned one, holds code or pickles, lacks weights, or is no CLIP model.
    """

    def __init__(self, folder: str | Path, pin: str, *, batch: int = 32, device: str = "cpu") -> None:
        from transformers import AutoConfig, AutoTokenizer, CLIPModel

        check_pin(folder, pin)
        check_safetensors(folder)
        check_size(folder)
        local = dict(trust_remote_code=False, local_files_only=True)
        config = AutoConfig.from_pretrained(str(folder), **local)
        if config.model_type != "clip":
            raise ScorerMismatchError(f"{folder} is a {config.model_type!r} model: only 'clip' is read")
        model, loading = CLIPModel.from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        if loading["missing_keys"]:
            # transformers fills them with random numbers and goes on.
            missing = sorted(loading["missing_keys"])
            raise ScorerMismatchError(f"{folder} lacks weights such as {missing[0]} ({len(missing)} in all)")
        self.pin = pin
        self.dimensions: int = config.projection_dim
        self._folder, self._batch, self._device = str(folder), batch, device
        self._model: Any = model.eval().to(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **local)
        self._longest: int = config.text_config.max_position_embeddings

    def embed_texts(self, texts: Sequence[str]) -> Float32Array:
        """Unit vector of each text, float32 [texts, dims]; what is longer than the model reads is cut."""
        out = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), self._batch):
            part = [t.encode("utf-8", "replace").decode() for t in texts[start : start + self._batch]]
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
            inputs = {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                vectors = self._model.text_projection(self._model.text_model(**inputs).pooler_output)
            out[start : start + len(part)] = unit(vectors.float().cpu().numpy())
        return out

    def embed_images(self, images: Sequence[Any]) -> Float32Array:
        """Unit vector of each picture (PIL image, or uint8 array [height, width, 3]), float32 [pictures, dims].

        Raises:
            ImportError: Pillow is not installed.
        """
        with from_extra("clip", "pictures are read by Pillow"):
            import PIL  # noqa: F401
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(self._folder, trust_remote_code=False, local_files_only=True)
        out = np.empty((len(images), self.dimensions), np.float32)
        for start in range(0, len(images), self._batch):
            part = list(images[start : start + self._batch])
            pixels = processor(part, return_tensors="pt")["pixel_values"].to(self._device)
            with torch.inference_mode():
                vectors = self._model.visual_projection(self._model.vision_model(pixel_values=pixels).pooler_output)
            out[start : start + len(part)] = unit(vectors.float().cpu().numpy())
        return out


class ClipScorer:
    """The calibrated cosine of text and picture (a `DenseRelevanceScorer`: it can also recall).

    Args:
        documents: What the rows mean.
        encoder: The model.
        pictures: Embedding of each document by the same model, float32 [documents, dims]: `catalogue.visual` where it holds
            them, or `encoder.embed_images`. A row of NaN or zeros is a document without a picture: no text matches it, it
            scores lowest.
        calibration: Makes probabilities of cosines.

    Raises:
        ValueError: `pictures` does not fit the catalogue or the model, or holds something that is not finite.
    """

    def __init__(
        self, documents: Documents, encoder: ClipEncoder, pictures: Float32Array, calibration: ScoreCalibration
    ) -> None:
        if pictures.shape != (len(documents), encoder.dimensions):
            raise ValueError(
                f"pictures have shape {pictures.shape}, not ({len(documents)}, {encoder.dimensions}): embed them by this model"
            )
        pictures = np.where(np.isnan(pictures).all(axis=1, keepdims=True), np.float32(0), pictures)
        bad = np.flatnonzero(~np.isfinite(pictures).all(1))
        if len(bad):
            raise ValueError(f"the picture of document {documents.id_at(int(bad[0]))!r} is not finite")
        self._vectors = unit(pictures)
        self._seen = np.any(self._vectors != 0, axis=1)
        self._documents, self._encoder, self._calibration = documents, encoder, calibration
        content = sha256_chunks([self._vectors.tobytes()])
        self._hash = sha256_json(["clip", encoder.pin, content, calibration.slope, calibration.offset])

    @property
    def model_hash(self) -> str:
        """Hash over the folder, the pictures' embeddings and the calibration."""
        return self._hash

    @property
    def document_vectors(self) -> Float32Array:
        """Unit vector of every picture, float32 [documents, dims]; zero where there is none."""
        return self._vectors

    def embed_texts(self, texts: Sequence[str]) -> Float32Array:
        """Unit vector of each text, float32 [texts, dims]."""
        return self._encoder.embed_texts(texts)

    def score(self, texts: Sequence[str], rows: IntArray) -> FloatArray:
        """See `RelevanceScorer.score`.

        Raises:
            ScoreError: the model's embedding of a text is not finite.
        """
        rows = np.asarray(rows, np.int64)
        distinct = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = self.embed_texts(distinct).astype(np.float64)
        out = np.zeros(rows.shape)
        for i, text in enumerate(texts):
            there = rows[i] >= 0
            rows_here = rows[i][there]
            if not len(rows_here):
                continue
            if not np.isfinite(vectors[place[text]]).all():
                raise ScoreError(f"the score of document {self._documents.id_at(int(rows_here[0]))!r} is not a finite number")
            cosine = self._vectors[rows_here].astype(np.float64) @ vectors[place[text]]
            out[i, there] = np.where(self._seen[rows_here], self._calibration(cosine), LOWEST)
        return out


def unit(x: Float32Array) -> Float32Array:
    """Rows of length 1, zero rows left at zero, float32 as `x`."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)
