"""Model folders with an LM head of its own, for servers that reload weights: with a shared one they keep the old head."""

import json
from copy import deepcopy
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from corewrite.rewriter.artifact import EXPORT_FILE, Rewriter, RewriterError
from corewrite.storage.durable import naming


def save_untied(rewriter: Rewriter, folder: Path) -> None:
    """Write model and tokenizer with `tie_word_embeddings: false` and the head's weights beside the embeddings'.

    It computes the very logits of the rewriter and is no artifact: it has more weights, so another hash.

    Args:
        rewriter: Not changed; weights are shared meanwhile but for the head's.
        folder: Where to; made where it is not there.

    Raises:
        RewriterError: the model has an adapter that is not merged, or no LM head that can be found.
    """
    if rewriter.has_adapter:
        raise RewriterError("the model has an adapter: save merged(rewriter)")
    model = rewriter.model
    untied = deepcopy(model, {id(p): p for p in model.parameters()})
    embeddings, head = untied.get_input_embeddings(), untied.get_output_embeddings()
    if head is None:
        raise RewriterError(f"{type(model).__name__} has no LM head that can be found: it cannot be saved untied")
    if head.weight is embeddings.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in (untied.config, untied.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = False
    folder.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()  # ours shows the step
    with naming(folder):
        untied.save_pretrained(folder, safe_serialization=True)
        rewriter.tokenizer.save_pretrained(folder)


def save_export(rewriter: Rewriter, folder: Path, target: str) -> None:
    """What `save_untied` writes, marked so that `load_rewriter` refuses it.

    Args:
        rewriter: What to write.
        folder: Where to.
        target: The program that it is for.

    Raises:
        RewriterError: as of `save_untied`.
    """
    save_untied(rewriter, folder)
    with naming(folder):
        (folder / EXPORT_FILE).write_text(json.dumps({"for": target, "policy": rewriter.policy_hash}), "utf-8")
