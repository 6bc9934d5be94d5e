"""Packages that an extra of the distribution brings: imported where they are used, and named with their extra where missing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("sklearn", "threadpoolctl"),
    "report": ("tea_tasting", "vl_convert"),
    "serve": ("fastapi", "prometheus_client", "redis", "uvicorn"),
    "clip": ("PIL",),
    "cross-encoder": ("sentence_transformers",),
    "eval": ("bm25s", "sklearn"),
    "gguf": ("accelerate", "gguf"),
    "kserve": ("httpx", "tenacity"),
    "lora": ("peft",),
    "mlflow": ("mlflow",),
    "onnx": ("onnxruntime",),
    "opensearch": ("httpx", "opensearchpy"),
    "qdrant": ("httpx", "qdrant_client"),
    "redis": ("redis",),
    "seal": ("nacl",),
    "server": ("httpx", "tenacity"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
}
"""Modules by extra; pyproject.toml says which distributions, and of which versions."""


class MissingExtraError(ImportError):
    """A package is not installed that an extra brings; the message says how to install it."""


@contextmanager
def from_extra(extra: str, what: str) -> Iterator[None]:
    """Imports within it are of packages that an extra brings.

    Args:
        extra: One of `EXTRAS`.
        what: What needs which package, such as "charts are drawn by vl-convert".

    Raises:
        MissingExtraError: one cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{what}: pip install 'corewrite[{extra}]'") from error


def missing_modules(extra: str) -> list[str]:
    """Modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def require_extras(*extras: str) -> None:
    """Refuse before minutes of work what would fail for want of a package after them.

    Raises:
        MissingExtraError: a package is not installed; the message names all, and the extras that bring them.
    """
    missing = {extra: names for extra in extras if (names := missing_modules(extra))}
    if missing:
        named = ", ".join(dict.fromkeys(name for names in missing.values() for name in names))
        raise MissingExtraError(f"not installed: {named}: pip install 'corewrite[{','.join(missing)}]'")
