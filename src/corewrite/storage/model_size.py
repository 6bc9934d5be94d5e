"""Whether a model's configuration is of what lies beside it; needs transformers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from corewrite.storage.model_files import UnsafeModelError, num_values


def check_model_size(folder: Path, build: Callable[[Any], Any]) -> None:
    """Refuse a configuration of a much larger model than the weights are of: the library makes room for all of it first.

    Args:
        folder: With `config.json` and `*.safetensors`.
        build: Makes a model of a configuration, such as `AutoModel.from_config`; called where tensors have shapes alone.

    Raises:
        UnsafeModelError: it is.
        Exception: whatever the library makes of an odd configuration.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    check_size(folder, partial(build, config), sum(map(num_values, folder.glob("*.safetensors"))))


def check_size(path: Path, build: Callable[[], Any], there: int) -> None:
    """Refuse what `check_model_size` refuses, however the weights are stored.

    Args:
        path: Of the configuration, for the message.
        build: Makes the model; called where tensors have shapes alone.
        there: Numbers that the weights hold.

    Raises:
        UnsafeModelError: the configuration is of a much larger model.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes alone, and no draw is used up
        model = build()
    asked = sum(p.numel() for p in model.parameters())
    if asked > 2 * there:  # an LM head may be the embedding
        raise UnsafeModelError(f"the configuration in {path} is of a model of {asked:,} weights, and there are {there:,}")
