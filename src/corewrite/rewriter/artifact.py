"""A rewriter: language model, tokenizer and prompt template as one artifact folder."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from corewrite.domain import sha256_chunks
from corewrite.rewriter.log_probs import packed_log_probs, response_log_probs
from corewrite.rewriter.paths import ModelPaths, probe_paths
from corewrite.rewriter.template import MARKS, PromptTemplate
from corewrite.rewriter.template_choice import TemplateChoice
from corewrite.rewriter.template_config import RESERVED, TemplateConfig
from corewrite.storage.durable import naming
from corewrite.storage.model_files import UnsafeModelError, check_model_file
from corewrite.storage.model_size import check_model_size
from corewrite.storage.tensor_file import bytes_of

TEMPLATE_FILE = "prompt_template.json"
"""What makes a model folder a rewriter's."""
EXPORT_FILE = "corewrite_export.json"
"""What marks a folder that was written for another program, and is no artifact."""
_GGUF = ".gguf"
_READ = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What is read of a model on the hub."""
_SHORT = 256
_PROMPT = 512
LONGEST_REWRITE = 64
"""Tokens of a rewrite at most, for which a prompt leaves room."""


class RewriterError(ValueError):
    """A model folder that cannot or must not be loaded."""


class SlowPathWarning(UserWarning):
    """A model whose attention does not allow a short cut: it runs slower, with the same results."""


@dataclass(eq=False)
class Rewriter:
    """A causal language model that rewrites queries.

    Attributes:
        model: A `transformers` causal LM.
        tokenizer: Its tokenizer, with the template's reserved tokens.
        template: Builds its prompts.
    """

    model: Any
    tokenizer: Any
    template: PromptTemplate
    _paths: ModelPaths | None = field(default=None, repr=False)
    _frozen_hash: str | None = field(default=None, repr=False)

    @property
    def paths(self) -> ModelPaths:
        """The short cuts that the model's attention allows, probed once; warns of those that it does not."""
        if self._paths is None:
            self._paths = probe_paths(self.model, self._longest)
            for reason in self._paths.reasons:
                warnings.warn(f"{reason}: plain sequences instead, as right and slower", SlowPathWarning, stacklevel=2)
        return self._paths

    @property
    def has_adapter(self) -> bool:
        """Whether the model carries a peft adapter that is not merged."""
        return hasattr(self.model, "merge_and_unload")

    def log_probs(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]], *, width_multiple: int = 1
    ) -> torch.Tensor:
        """Per-token log-probabilities of the responses of each prompt, packed where the model's attention allows it.

        Args:
            prompts: Prompt ids of each row.
            responses: The responses of each row.
            width_multiple: Rows are padded to a multiple of so many tokens.

        Returns:
            Float32 [responses in all, longest response], as of `packed_log_probs`.
        """
        if self.paths.packed:
            return packed_log_probs(self.model, prompts, responses, width_multiple=width_multiple)
        repeated = [x for x, ys in zip(prompts, responses, strict=True) for _ in ys]
        return response_log_probs(self.model, repeated, [y for ys in responses for y in ys], width_multiple=width_multiple)

    @property
    def _longest(self) -> int:
        """Tokens of the longest prompt and rewrite together, less the few that the probe adds."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        longest = self.template.config.max_tokens + LONGEST_REWRITE
        return max(1, (min(longest, positions) if positions else longest) - 4)

    @property
    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that training moves: all, or those of an adapter."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def trained_state(self) -> dict[str, torch.Tensor]:
        """By name, what training moves and a sync or checkpoint has to carry. The tensors are the model's own."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def policy_hash(self) -> str:
        """Content hash over weights, tokenizer and prompt template."""
        chunks: list[bytes | memoryview] = [
            self.tokenizer.backend_tokenizer.to_str().encode(),
            self.template.config.to_json().encode(),
        ]
        trained = self.trained_state()
        state = self.model.state_dict()
        if len(trained) < sum(1 for _ in self.model.parameters()):
            # What is frozen is hashed once: a policy with an adapter is hashed at every sync.
            if self._frozen_hash is None:
                frozen = {name: value for name, value in state.items() if name not in trained}
                self._frozen_hash = sha256_chunks(_state_chunks(frozen))
            chunks.append(self._frozen_hash.encode())
            state = trained
        return sha256_chunks([*chunks, *_state_chunks(state)])

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.model.parameters())

    def copy(self, dtype: torch.dtype | None = None) -> "Rewriter":
        """The same rewriter with trained weights of its own (frozen ones are shared), in `dtype` where one is given."""
        shared = {} if dtype else {id(p): p for p in self.model.parameters() if not p.requires_grad}
        twin = deepcopy(self.model, shared)
        if dtype is not None:
            # Not the buffers: rotary frequencies in bfloat16 are off by 0.2 radians at 500 tokens.
            for parameter in twin.parameters():
                parameter.data = parameter.data.to(dtype)
        return Rewriter(twin.eval(), self.tokenizer, self.template, self.paths, self._frozen_hash)

    def save(self, folder: Path) -> None:
        """Write the artifact: safetensors weights, tokenizer and template.

        Raises:
            RewriterError: the model has an adapter that is not merged.
        """
        if self.has_adapter:
            raise RewriterError("the model has an adapter, which an artifact cannot hold: save merged(rewriter)")
        folder.mkdir(parents=True, exist_ok=True)
        transformers_logging.disable_progress_bar()  # ours shows the step
        with naming(folder):
            self.model.save_pretrained(folder, safe_serialization=True)
            self.tokenizer.save_pretrained(folder)
            (folder / TEMPLATE_FILE).write_text(self.template.config.to_json(), "utf-8")


def check_model(path_or_name: str | Path) -> None:
    """Check that `load_rewriter` will find a model, without its weights: the folder, or the configuration of a name.

    Raises:
        RewriterError: the folder is missing or holds a file that `check_model_file` refuses, or there is no model of the name.
    """
    try:
        folder = _model_folder(path_or_name, ["config.json", "adapter_config.json"])
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except RewriterError:
        raise
    except Exception as error:  # as in `load_rewriter`
        raise RewriterError(f"cannot read {path_or_name} as a causal LM: {error}") from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise RewriterError(f"{path_or_name} is a {config.model_type}, which is no causal LM of transformers")


def is_rewriter(path_or_name: str | Path) -> bool:
    """Whether a model has a prompt template of its own: it was trained, or at least made, as a rewriter.

    Args:
        path_or_name: A folder, or the name of a model in the local cache or on the hub.

    Raises:
        RewriterError: as of `check_model`.
    """
    return (_model_folder(path_or_name, ["config.json", TEMPLATE_FILE]) / TEMPLATE_FILE).is_file()


def _model_folder(path_or_name: str | Path, read: list[str]) -> Path:
    """Where the model's files are, checked before a library opens any of them.

    Args:
        path_or_name: A folder, or a name on the hub.
        read: Patterns of the files that are read of a model on the hub; the cache may hold more of it.
    """
    folder = Path(path_or_name)
    if folder.suffix.lower() == _GGUF and not folder.is_dir():
        raise RewriterError(f"{path_or_name} is a GGUF file: {_import_hint(folder)}")
    if folder.is_dir():
        files = sorted(folder.iterdir())
        if (folder / EXPORT_FILE).exists():
            raise RewriterError(f"{folder} is an export, by its {EXPORT_FILE}: name the rewriter it was made of")
        if not any(file.suffix == ".safetensors" for file in files):
            _check_files(files)  # what is there instead says more
            if found := [file for file in files if file.suffix.lower() == _GGUF]:
                raise RewriterError(f"{folder} holds a GGUF file and no *.safetensors file: {_import_hint(found[0])}")
            raise RewriterError(f"{folder} holds no *.safetensors file: is it a transformers model folder?")
    elif isinstance(path_or_name, Path) or path_or_name.startswith((".", "/", "~")):
        raise RewriterError(f"{path_or_name} is not a folder: give a transformers model folder or a model name")
    else:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(path_or_name, allow_patterns=read, ignore_patterns=["*/*", "consolidated*"]))
        files = sorted(f for f in folder.iterdir() if any(fnmatch(f.name, pattern) for pattern in read))
    _check_files(files)
    return folder


def _import_hint(file: Path) -> str:
    return f"make a rewriter of it with `corewrite model import {file} --out FOLDER`, and name that folder"


def _check_files(files: list[Path]) -> None:
    for file in files:
        if file.is_file():
            try:
                check_model_file(file)
            except UnsafeModelError as error:
                raise RewriterError(str(error)) from error


def load_rewriter(
    path_or_name: str | Path,
    config: TemplateConfig | None = None,
    *,
    home_locale: str = "",
    template: TemplateChoice | None = None,
) -> Rewriter:
    """Load a rewriter's artifact folder, or any `transformers` causal LM with a fast tokenizer.

    A model that is no artifact yet gets a pad token if it has none and, of a template of reserved tokens, these (its embeddings
    grow by them); it then has to be warm-started. Weights are read from safetensors of that folder only, no remote code is run.

    Args:
        path_or_name: A folder, or the name of a model in the local cache or on the hub.
        config: Template of a model without one of its own; None: as long as the model allows, with `home_locale`.
        home_locale: See `TemplateConfig`.
        template: In the place of `config`, the template of a model without one of its own; None: reserved tokens.

    Raises:
        RewriterError: the folder is missing, holds a file that `check_model_file` refuses (pickled weights, code, an index of
            weights elsewhere, an adapter), cannot be read as a causal LM, or lacks weights; its prompt template cannot be used,
            or it has one and `template` chooses another.
    """
    transformers_logging.disable_progress_bar()  # ours shows the step
    try:
        folder = _model_folder(path_or_name, _READ)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True, use_fast=True)
        tokenizer.encode("a")  # its settings may be of a form that is noticed only now
        # It is saved with the tokenizer, though it says how this one was loaded: artifacts, so their hashes, have it false.
        tokenizer.init_kwargs["local_files_only"] = False
        check_model_size(folder, partial(AutoModelForCausalLM.from_config, trust_remote_code=False))
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except RewriterError:
        raise
    except Exception as error:  # the library has no error of its own for what it cannot make of a configuration
        raise RewriterError(f"cannot load {path_or_name} as a causal LM: {error}") from error
    if loading["missing_keys"]:
        # transformers fills them with random numbers and goes on.
        missing = sorted(loading["missing_keys"])
        raise RewriterError(f"{path_or_name} lacks {len(missing)} weights of its config, {missing[0]} the first")
    saved = folder / TEMPLATE_FILE
    if saved.is_file():
        if template is not None:
            raise RewriterError(
                f"{path_or_name} is a rewriter with a prompt template of its own ({TEMPLATE_FILE}), which it was trained with: "
                "choose none, or name the model that it was made of"
            )
        try:
            config = TemplateConfig.from_json(saved.read_text("utf-8"))
        except ValueError as error:
            raise RewriterError(f"{saved}: {error}") from error
    return build_rewriter(model, tokenizer, str(path_or_name), config, home_locale=home_locale, template=template)


def build_rewriter(
    model: Any,
    tokenizer: Any,
    name: str,
    config: TemplateConfig | None = None,
    *,
    home_locale: str = "",
    template: TemplateChoice | None = None,
) -> Rewriter:
    """A rewriter of a model and a tokenizer as a library loaded them, with the template's reserved tokens and a pad token.

    Where a chat template ends what a model says with another special token than the tokenizer's end-of-sequence token, that
    becomes the end-of-sequence token, also in the model's settings: what serves the model elsewhere then ends there too.

    Args:
        model: A `transformers` causal LM in float32; changed in place.
        tokenizer: Its fast tokenizer; changed in place.
        name: Of the model, for messages.
        config: As of `load_rewriter`.
        home_locale: See `TemplateConfig`.
        template: As of `load_rewriter`.

    Raises:
        RewriterError: the tokenizer has no end-of-sequence token, the model too few positions, or the prompt template cannot be
            used.
    """
    _attend_plainly(model)
    for parameter in model.parameters():
        # Loaded weights lie in the mapped file: a save over it would pull them away, and memory that starts anywhere rounds
        # differently from that of the model that was saved.
        parameter.data = parameter.data.clone()
    if tokenizer.eos_token_id is None:
        raise RewriterError(f"the tokenizer of {name} has no end-of-sequence token: set eos_token")
    try:
        config = config or (template or TemplateChoice()).config(tokenizer, _limits(model, home_locale))
        if config.end in tokenizer.get_added_vocab() and config.end != tokenizer.eos_token:
            tokenizer.eos_token = config.end
            for settings in (model.config, model.generation_config):
                settings.eos_token_id = tokenizer.eos_token_id
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if config.kind == RESERVED:
            tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
        prompts = PromptTemplate(tokenizer, config)
    except RewriterError:
        raise
    except ValueError as error:
        raise RewriterError(f"the prompt template of {name} cannot be used: {error}") from error
    if template is not None:
        check_room(model, config.max_tokens)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        torch.manual_seed(0)  # the new rows are drawn: the same folder must load the same way twice
        model.resize_token_embeddings(len(tokenizer))
    return Rewriter(model.to(best_device()).eval(), tokenizer, prompts)


def new_small_decoder(
    texts: Sequence[str],
    *,
    seed: int,
    vocabulary: int = 4096,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    home_locale: str = "",
) -> Rewriter:
    """A small Llama-style decoder with random weights and a tokenizer trained on `texts` (byte-level BPE).

    Frequent words become single tokens, rare and misspelt ones break into pieces; every string has an encoding. For
    `home_locale` see `TemplateConfig`.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", *MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        min_frequency=3,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>", additional_special_tokens=list(MARKS)
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=_SHORT,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    _attend_plainly(model)
    return Rewriter(
        model.to(best_device()).eval(), tokenizer, PromptTemplate(tokenizer, TemplateConfig(home_locale=home_locale))
    )


def best_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _state_chunks(state: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    for name in sorted(state):
        yield f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode()
        yield from bytes_of(state[name])


def _limits(model: Any, home_locale: str) -> TemplateConfig:
    """Prompt limits of a model that brings none: 512 tokens, or what its positions leave beside a rewrite."""
    positions = getattr(model.config, "max_position_embeddings", None) or 2 * _PROMPT
    if positions < 2 * LONGEST_REWRITE:
        raise RewriterError(f"the model has {positions} positions: a prompt and a rewrite need at least {2 * LONGEST_REWRITE}")
    return TemplateConfig(min(_PROMPT, positions - LONGEST_REWRITE), 6, 4, 64, home_locale)


def check_room(model: Any, max_tokens: int) -> None:
    """Check that a model's positions hold prompts of so many tokens and a rewrite.

    Raises:
        RewriterError: they do not.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and max_tokens + LONGEST_REWRITE > longest:
        raise RewriterError(
            f"prompts of {max_tokens} tokens leave no room for a rewrite of {LONGEST_REWRITE}: the model has {longest} "
            f"positions; give at most {longest - LONGEST_REWRITE}"
        )


def _attend_plainly(model: Any) -> None:
    """Plain attention for a model of short prompts: the fused kernel's backward pass on a CPU takes longer than it saves."""
    if (getattr(model.config, "max_position_embeddings", None) or _SHORT + 1) <= _SHORT:
        model.set_attn_implementation("eager")
