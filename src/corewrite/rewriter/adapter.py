"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: trained on top of frozen weights, merged for serving."""

import copy
from collections.abc import Sequence

from corewrite.rewriter.artifact import Rewriter, RewriterError


def with_adapter(rewriter: Rewriter, *, rank: int, alpha: int, targets: Sequence[str] = (), seed: int) -> Rewriter:
    """The rewriter with a new adapter: its outputs are unchanged, and only the adapter's weights are trained.

    Args:
        rewriter: Its weights are copied and frozen; copies of the result share them.
        rank, alpha: Of the adapter.
        targets: Names of the layers that get one; empty: all linear layers but the LM head.
        seed: For the adapter's first weights.

    Raises:
        RewriterError: peft is not installed, no layer has such a name, or the target is an LM head that is the embedding too.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise RewriterError("adapters need peft: pip install 'corewrite[lora]'") from error
    import torch

    model = rewriter.model
    head = model.get_output_embeddings()
    tied = head if head.weight is model.get_input_embeddings().weight else None
    for target in targets:
        layers = [layer for name, layer in model.named_modules() if name == target or name.endswith(f".{target}")]
        if not layers:
            raise RewriterError(f"no adapter for {target}: no layer of {type(model).__name__} ends with {target!r}")
        if any(layer is tied for layer in layers):
            raise RewriterError(f"no adapter for {target}: it is the embedding too, which merging would change")
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM", lora_dropout=0.0
    )
    try:
        adapted = get_peft_model(copy.deepcopy(model), config)
    except ValueError as error:
        raise RewriterError(f"no adapter for {', '.join(targets) or 'the linear layers'}: {error}") from error
    return Rewriter(adapted.eval(), rewriter.tokenizer, rewriter.template)


def merged(rewriter: Rewriter) -> Rewriter:
    """The rewriter as it is served: a plain model, the adapter's product added to the weights; itself where it has none."""
    if not rewriter.has_adapter:
        return rewriter
    model = copy.deepcopy(rewriter.model).merge_and_unload()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return Rewriter(model.eval(), rewriter.tokenizer, rewriter.template)
