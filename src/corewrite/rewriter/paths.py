"""Which short cuts a model's attention allows: tried out, not guessed from its name."""

from dataclasses import dataclass
from typing import Any

import torch

from corewrite.rewriter.decode import Decoder, RecomputingDecoder, SharedPrefixDecoder
from corewrite.rewriter.log_probs import packed_log_probs, response_log_probs

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ModelPaths:
    """The short cuts of a model.

    Attributes:
        packed: Whether responses of a prompt can share a row of the gradient pass.
        shared_prefix: Whether samples of a prompt can share its keys and values.
        reasons: Why not, one sentence for each that cannot.
    """

    packed: bool
    shared_prefix: bool
    reasons: tuple[str, ...] = ()


@torch.inference_mode()
def probe_paths(model: Any, prompt_tokens: int, new_tokens: int = 4) -> ModelPaths:
    """Compare packed rows and shared prefixes with plain sequences, at the longest prompt that will be used.

    Sliding windows and recurrent states show themselves only at length; where they do, the plain way is taken and said why.
    Dropout is off meanwhile: it would tell any two passes apart.

    Args:
        model: A `transformers` causal LM in float32 (or float64).
        prompt_tokens: Longest prompt, tokens.
        new_tokens: Tokens of the responses tried.
    """
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]

    def ids(n: int) -> list[int]:
        return [int(i) for i in torch.randint(size, (n,), generator=generator)]

    prompts = [ids(prompt_tokens), ids(max(1, prompt_tokens // 3))]
    responses = [[ids(new_tokens), ids(new_tokens), ids(1)], [ids(2), ids(new_tokens)]]
    flat = [y for ys in responses for y in ys]
    plain = response_log_probs(model, [x for x, ys in zip(prompts, responses, strict=True) for _ in ys], flat)
    reasons = []

    def agrees(what: str, compute: Any) -> bool:
        try:
            difference = float(compute())
        except Exception as error:
            # Whatever a model that is not made for it raises, the plain way remains.
            reasons.append(f"{what}: {type(model).__name__} refuses it ({type(error).__name__}: {str(error)[:120]})")
            return False
        if not difference <= _TOLERANCE:
            reasons.append(f"{what}: {type(model).__name__} is off by {difference:.1e} nats at {prompt_tokens} tokens")
            return False
        return True

    def packed() -> torch.Tensor:
        return (packed_log_probs(model, prompts, responses) - plain).abs().max()

    def shared() -> torch.Tensor:
        ends: list[Decoder] = [SharedPrefixDecoder(model, prompts), RecomputingDecoder(model, prompts)]
        found = []
        device = next(model.parameters()).device
        owner, swapped = torch.tensor([0, 0, 1], device=device), torch.tensor([1, 0, 2], device=device)
        first, second = torch.tensor(ids(3), device=device), torch.tensor(ids(3), device=device)
        for decoder in ends:
            steps = [decoder.logits, decoder.advance(owner, first, owner), decoder.advance(swapped, second, owner)]
            found.append(torch.cat([s.float().log_softmax(-1) for s in steps]))
        return (found[0] - found[1]).abs().max()

    found = agrees("packed rows", packed), agrees("shared prefixes", shared)
    model.train(training)
    return ModelPaths(*found, tuple(reasons))
