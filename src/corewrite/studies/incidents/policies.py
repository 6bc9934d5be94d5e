"""Incidents of what saves a trained policy: the policy that is promoted is not quite the one that was trained."""

import json
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from corewrite.rewriter import PromptTemplate, Rewriter, load_rewriter
from corewrite.rewriter.template import MARKS
from corewrite.studies.incidents.incident import BranchPoint, Incident, Injection


def with_other_template(policy: Rewriter, differences: int) -> Rewriter:
    """The policy under another prompt template.

    Args:
        policy: As trained.
        differences: 1: the locale that goes without saying is spelt out; 2: and the context is left out.
    """
    config = replace(policy.template.config, home_locale="")
    if differences > 1:
        config = replace(config, titles=0, queries=0)
    return Rewriter(policy.model, policy.tokenizer, PromptTemplate(policy.tokenizer, config))


def with_other_tokenizer(policy: Rewriter, share: float, seed: int) -> Rewriter:
    """The policy with a tokenizer that was trained anew: a share of its tokens have other ids.

    Args:
        policy: As trained; its tokenizer is one of `tokenizers`, with a vocabulary by token.
        share: Of the tokens.
        seed: Of the ids.
    """
    value = json.loads(policy.tokenizer.backend_tokenizer.to_str())
    vocabulary = value["model"]["vocab"]
    reserved = {added["content"] for added in value["added_tokens"]}
    tokens = sorted(set(vocabulary) - reserved)
    rng = np.random.default_rng([seed, 95])
    moved = [token for token, draw in zip(tokens, rng.random(len(tokens)), strict=True) if draw < share]
    ids = [vocabulary[token] for token in moved]
    for token, at in zip(moved, rng.permutation(len(ids)).tolist(), strict=True):
        vocabulary[token] = ids[at]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(value)),
        pad_token=policy.tokenizer.pad_token,
        eos_token=policy.tokenizer.eos_token,
        additional_special_tokens=list(MARKS),
    )
    return Rewriter(policy.model, tokenizer, PromptTemplate(tokenizer, policy.template.config))


def _has_other_template(strength: float, point: BranchPoint) -> Injection:
    return Injection(export=lambda policy: with_other_template(policy, int(strength)))


def _has_other_tokenizer(strength: float, point: BranchPoint) -> Injection:
    return Injection(export=lambda policy: with_other_tokenizer(policy, strength, point.seed))


def _is_old(strength: float, point: BranchPoint) -> Injection:
    return Injection(export=lambda policy: load_rewriter(point.policy))


POLICY_INCIDENTS = (
    Incident(
        "template-mismatch",
        "fault",
        "the policy is served with another prompt template than it was trained with, for a week",
        (1.0, 2.0),
        "differences: the locale is spelt out, the context is left out",
        1,
        False,
        _has_other_template,
    ),
    Incident(
        "tokenizer-mismatch",
        "fault",
        "the policy is served with a tokenizer that gives some tokens other ids, for a week",
        (0.02, 0.1, 0.5),
        "share of the tokens",
        1,
        False,
        _has_other_tokenizer,
    ),
    Incident(
        "old-policy",
        "fault",
        "last month's policy file is published in the place of the new one",
        (1.0,),
        "weeks",
        1,
        False,
        _is_old,
    ),
)
