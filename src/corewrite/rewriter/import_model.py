"""Making a rewriter of a pretrained model: of a folder of safetensors, or of a GGUF file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from corewrite.rewriter.artifact import TEMPLATE_FILE, Rewriter, RewriterError, build_rewriter, load_rewriter
from corewrite.rewriter.gguf_file import read_gguf
from corewrite.rewriter.template_choice import TemplateChoice
from corewrite.storage.model_files import num_values_by_type


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A rewriter made of a pretrained model.

    Attributes:
        rewriter: It, in float32; new tokens, of a template of reserved ones, mean nothing before a warm start.
        format: Of what was read.
        stored: Numbers that were read by the type they were stored in.
        num_added_tokens: Rows that the embeddings grew by.
    """

    rewriter: Rewriter
    format: Literal["gguf", "safetensors"]
    stored: Mapping[str, int]
    num_added_tokens: int


def import_model(
    source: Path, *, prompt_tokens: int | None = None, home_locale: str = "", template: TemplateChoice = TemplateChoice()
) -> ImportedModel:
    """Make a rewriter of a pretrained causal LM, as `load_rewriter` would; no code of it is run.

    Args:
        source: A GGUF file, or a `transformers` folder with safetensors.
        prompt_tokens: Tokens of a prompt at most; None: 512, or what the model's positions leave beside a rewrite.
        home_locale: See `TemplateConfig`.
        template: What prompts look like; the default: reserved tokens.

    Raises:
        MissingExtraError: it is a GGUF file, and the packages of the extra `gguf` are not installed.
        RewriterError: there is no such model, it cannot be read or must not be loaded, it is a rewriter already, it has too
            few positions, or the prompt template cannot be used.
        FileNotFoundError: there is nothing at `source`.
    """
    if prompt_tokens is not None:
        template = replace(template, max_tokens=prompt_tokens)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder: give a GGUF file or a transformers model folder")
    if source.is_dir():
        if (source / TEMPLATE_FILE).exists():
            raise RewriterError(f"{source} is a rewriter already, by its {TEMPLATE_FILE}: use it as it is")
        rewriter = load_rewriter(source, home_locale=home_locale, template=template)
        stored: Mapping[str, int] = sum(map(num_values_by_type, source.glob("*.safetensors")), Counter())
        before = _num_embeddings(source)
    else:
        read = read_gguf(source)
        before = read.model.get_input_embeddings().num_embeddings
        rewriter = build_rewriter(read.model, read.tokenizer, str(source), home_locale=home_locale, template=template)
        stored = read.stored
    added = rewriter.model.get_input_embeddings().num_embeddings - before
    return ImportedModel(rewriter, "safetensors" if source.is_dir() else "gguf", stored, added)


def _num_embeddings(folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    return int(config.get_text_config(decoder=True).vocab_size)
