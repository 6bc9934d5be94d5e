"""The rewriter: a causal language model with its tokenizer and prompt template as one artifact."""

from corewrite.rewriter.artifact import Rewriter, RewriterError, load_rewriter, new_small_decoder
from corewrite.rewriter.clean import Cleaned, clean
from corewrite.rewriter.examples import Example, omissions, other_contexts, slips, told_by_titles
from corewrite.rewriter.fine_tune import FineTuneReport, fine_tune, mean_token_loss
from corewrite.rewriter.generate import MAX_NEW_TOKENS, Rewrite, greedy, sample
from corewrite.rewriter.log_probs import length_buckets, response_log_probs
from corewrite.rewriter.template import PromptTemplate, PromptTooLongError, TemplateConfig

__all__ = [
    "MAX_NEW_TOKENS",
    "Cleaned",
    "Example",
    "FineTuneReport",
    "PromptTemplate",
    "PromptTooLongError",
    "Rewrite",
    "Rewriter",
    "RewriterError",
    "TemplateConfig",
    "clean",
    "fine_tune",
    "greedy",
    "length_buckets",
    "load_rewriter",
    "mean_token_loss",
    "new_small_decoder",
    "omissions",
    "other_contexts",
    "response_log_probs",
    "sample",
    "slips",
    "told_by_titles",
]
