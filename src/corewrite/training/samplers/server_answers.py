"""Completions as a server answers them, checked against what was asked for."""

import sys
from collections.abc import Sequence
from typing import Any

from corewrite.rewriter import Completion

_SHOWN = 200


def read_completions(answer: Any, prompt: Sequence[int], n: int, limit: int, vocabulary: int, eos: int) -> list[Completion]:
    """The completions of an answer, in the order of their index.

    Raises:
        ValueError: what is wrong with it.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError(f"the answer holds no list of choices: {cut(answer)}")
    indices = [choice.get("index") for choice in choices]
    if len(indices) != n or any(i not in indices for i in range(n)):
        raise ValueError(f"the answer holds choices {cut(indices)}, asked for were {n}")
    return [_read_choice(choices[indices.index(i)], prompt, limit, vocabulary, eos) for i in range(n)]


def _read_choice(choice: dict[str, Any], prompt: Sequence[int], limit: int, vocabulary: int, eos: int) -> Completion:
    ids = choice.get("token_ids")
    if not isinstance(ids, list):
        raise ValueError(
            "a choice has no token_ids, and text is never tokenised again: use a server that knows return_token_ids, such as "
            "vLLM from vllm-project/vllm#22587 on"
        )
    seen = choice.get("prompt_token_ids")
    if seen is not None and seen != list(prompt):
        found = f"{len(seen)} ids" if isinstance(seen, list) else cut(seen)
        raise ValueError(f"the server changed the prompt: {found} instead of {len(prompt)}, or others")
    wrong = [i for i in ids if type(i) is not int or not 0 <= i < vocabulary]
    if wrong:
        raise ValueError(f"token id {cut(wrong[0])} is not in the policy's vocabulary of {vocabulary}: is it another model?")
    if not 1 <= len(ids) <= limit:
        raise ValueError(f"a choice has {len(ids)} tokens, asked for were 1 to {limit}")
    if eos in ids[:-1] or (ids[-1] != eos and len(ids) < limit):
        raise ValueError(
            f"a choice of {len(ids)} tokens (finish_reason {cut(choice.get('finish_reason'))}) ends neither at the limit of "
            f"{limit} nor where token {eos} first comes: the server stops at other tokens too (start vLLM with "
            "--generation-config vllm), leaves the last one out, or ran into its own length limit"
        )
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) != len(ids):
        raise ValueError(f"a choice of {len(ids)} tokens lacks logprobs.token_logprobs for each")
    if not all(isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in values):
        raise ValueError(f"a choice has a log-probability that is no finite number: {cut(values)}")
    return Completion(tuple(ids), tuple(float(value) for value in values))


def cut(value: Any) -> str:
    """A value of an answer as an error names it."""
    try:
        return repr(value)[:_SHOWN]
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} that cannot be printed"
