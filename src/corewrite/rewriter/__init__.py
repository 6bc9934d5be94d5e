"""The rewriter: a causal language model with its tokenizer and prompt template as one artifact."""

from corewrite.rewriter.adapter import merged, with_adapter
from corewrite.rewriter.artifact import Rewriter, RewriterError, SlowPathWarning, is_rewriter, load_rewriter, new_small_decoder
from corewrite.rewriter.checksum import weights_checksum
from corewrite.rewriter.clean import Cleaned, clean
from corewrite.rewriter.decode import Completion
from corewrite.rewriter.divergence import kl_along
from corewrite.rewriter.examples import (
    Example,
    context_word_dropout,
    expanded,
    other_contexts,
    title_conditioned_dropout,
    typo_noise,
)
from corewrite.rewriter.fine_tune import FineTuneReport, fine_tune, mean_token_loss
from corewrite.rewriter.generate import MAX_NEW_TOKENS, Rewrite, as_rewrite, beam, distinct_prompts, greedy, sample
from corewrite.rewriter.import_model import ImportedModel, import_model
from corewrite.rewriter.log_probs import length_buckets, multiplies_bfloat16, on_device, packed_log_probs, response_log_probs
from corewrite.rewriter.paths import ModelPaths, probe_paths
from corewrite.rewriter.sandbox import TemplateRenderError
from corewrite.rewriter.template import PromptTemplate, PromptTooLongError
from corewrite.rewriter.template_choice import TemplateChoice
from corewrite.rewriter.template_config import TemplateConfig, folded_locale
from corewrite.rewriter.untied import save_export, save_untied
from corewrite.rewriter.usual_words import usual_words

__all__ = [
    "MAX_NEW_TOKENS",
    "Cleaned",
    "Completion",
    "Example",
    "FineTuneReport",
    "ImportedModel",
    "ModelPaths",
    "PromptTemplate",
    "PromptTooLongError",
    "Rewrite",
    "Rewriter",
    "RewriterError",
    "SlowPathWarning",
    "TemplateChoice",
    "TemplateConfig",
    "TemplateRenderError",
    "as_rewrite",
    "beam",
    "clean",
    "context_word_dropout",
    "distinct_prompts",
    "expanded",
    "fine_tune",
    "folded_locale",
    "greedy",
    "import_model",
    "is_rewriter",
    "kl_along",
    "length_buckets",
    "load_rewriter",
    "mean_token_loss",
    "merged",
    "multiplies_bfloat16",
    "new_small_decoder",
    "on_device",
    "other_contexts",
    "packed_log_probs",
    "probe_paths",
    "response_log_probs",
    "sample",
    "save_export",
    "save_untied",
    "title_conditioned_dropout",
    "typo_noise",
    "usual_words",
    "weights_checksum",
    "with_adapter",
]
