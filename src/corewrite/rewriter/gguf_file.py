"""Models of GGUF files (the format of llama.cpp): data alone, dequantised to float32 by transformers."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from corewrite.domain.extras import from_extra
from corewrite.rewriter.artifact import RewriterError
from corewrite.storage.model_files import check_parts
from corewrite.storage.model_size import check_size

_MAGIC = b"GGUF"
_NAME = "model.gguf"


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file holds.

    Attributes:
        model: A `transformers` causal LM in float32.
        tokenizer: Its fast tokenizer.
        stored: Numbers of the file by the type they are stored in, such as `{"Q4_1": 106168320, "F32": 35136}`.
    """

    model: Any
    tokenizer: Any
    stored: Mapping[str, int]


def read_gguf(file: Path) -> GgufModel:
    """Read a GGUF file; nothing else is read, no code is run, and no kernel is fetched to compute with.

    Raises:
        MissingExtraError: the packages of the extra `gguf` are not installed.
        RewriterError: it is no whole GGUF file, or of a model that transformers does not read, or damaged.
    """
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise RewriterError(f"{file} is no GGUF file: it does not begin with {_MAGIC.decode()}")
    with from_extra("gguf", "GGUF files are read by gguf and accelerate"):
        import accelerate  # noqa: F401  # transformers wants it
        from gguf import GGUFReader
    transformers_logging.disable_progress_bar()  # ours shows the step
    try:
        reader = GGUFReader(file)
        if (parts := reader.get_field("split.count")) is not None and int(parts.contents()) > 1:
            raise RewriterError(f"{file} is one of {int(parts.contents())} parts: join them with `llama-gguf-split --merge`")
        stored: Counter[str] = Counter()
        for tensor in reader.tensors:
            stored[tensor.tensor_type.name] += int(tensor.n_elements)
        with TemporaryDirectory() as folder:
            # Alone in its folder: libraries look for settings beside a model.
            Path(folder, _NAME).symlink_to(file.resolve())
            return _read(file, folder, stored, len(reader.tensors))
    except RewriterError:
        raise
    except Exception as error:  # libraries raise whatever a damaged file makes them
        raise RewriterError(f"cannot read {file} as a causal LM: {error}") from error


def _read(file: Path, folder: str, stored: Mapping[str, int], num_tensors: int) -> GgufModel:
    options = {"gguf_file": _NAME, "trust_remote_code": False, "local_files_only": True}
    config = AutoConfig.from_pretrained(folder, **options)
    check_parts(file, json.loads(config.to_json_string(use_diff=False)), lambda: num_tensors)
    build = partial(AutoModelForCausalLM.from_config, config, trust_remote_code=False)
    check_size(file, build, sum(stored.values()))
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, **options)
    tokenizer.encode("a")  # its settings may be of a form that is noticed only now
    for name in ("gguf_file", "local_files_only", "trust_remote_code"):
        tokenizer.init_kwargs.pop(name, None)  # how it was read is no part of it
    with redirect_stderr(StringIO()):  # a progress bar that no setting switches off; ours shows the step
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            # Else weights stay in their blocks where a kernel for them can be had, from a hub too.
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    if loading["missing_keys"]:
        # transformers fills them with random numbers and goes on.
        missing = sorted(loading["missing_keys"])
        raise RewriterError(f"{file} lacks {len(missing)} weights of its model, {missing[0]} the first")
    return GgufModel(model, tokenizer, stored)
