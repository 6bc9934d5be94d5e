"""The record of a phase, as its `record.json` holds it."""

from typing import TypedDict


class PhaseRecord(TypedDict, total=False):
    """Facts about one phase; the record of an earlier version may lack some.

    Rewards and gaps are in nats of log R, log-probabilities in nats, lengths in tokens.
    """

    phase: int
    """Number of the phase, from 0."""
    policy_version: str
    """Hash of the policy that was synced and sampled from."""
    instances: int
    """Instances drawn."""
    instances_without_pair: int
    """Of these, scored but without a preference pair."""
    instances_lost: dict[str, str]
    """Reason by id of the instances that were not scored."""
    prompts: int
    """Distinct prompts."""
    prompt_tokens: int
    """Their tokens."""
    prompts_truncated: int
    """Prompts whose context was cut to fit."""
    rollouts: int
    """Rewrites sampled, over all instances."""
    sampled_tokens: int
    """Tokens sampled, over distinct prompts."""
    malformed: int
    """Rollouts that cleaning had to change."""
    not_ended: int
    """Rollouts without an end-of-sequence token."""
    entropy_per_token: float
    """Monte-Carlo estimate of the sampling distribution's entropy."""
    log_prob_mismatch: float
    """Largest trainer-sampler difference right after the sync, per token."""
    sync_bytes: int
    """Bytes of weights synced."""
    reward_calls: int
    """Calls of the reward."""
    reward_retries: int
    """Of these, repeated ones."""
    score_busy_seconds: float
    """Seconds in calls of the reward, where it is scored beside sampling."""
    distinct_candidates: int
    """Scored candidates, the identities included."""
    mean_sampled_log_reward: float
    """Mean over rollouts."""
    mean_best_log_reward: float
    """Mean over instances of the best candidate's."""
    pairs: int
    """Preference pairs."""
    pair_roles: dict[str, int]
    """Pairs whose chosen or rejected side is the identity, and pairs between two samples."""
    mean_pair_gap: float
    """Mean difference in log R between chosen and rejected."""
    mean_chosen_tokens: float
    """Mean length of the chosen."""
    mean_rejected_tokens: float
    """Mean length of the rejected."""
    length_reward_correlation: float
    """Pearson correlation over pairs of length difference and gap; 0 where one does not vary."""
    packed_tokens: int
    """Tokens of the packed rows of the gradient pass."""
    optimizer_steps: int
    """Optimizer steps."""
    losses: dict[str, float]
    """Mean unweighted losses over pairs, and their weighted sum (`total`)."""
    gradient_norms: dict[str, float]
    """Norm of each weighted loss's gradient on a few rows at the beginning of the phase."""
    rho_chosen: float
    """Mean log pi / pi_ref of the chosen; falling while the margin grows is likelihood displacement."""
    rho_rejected: float
    """Mean log pi / pi_ref of the rejected."""
    accuracy: float
    """Share of pairs with rho_chosen > rho_rejected."""
    clipped: float
    """Share of steps whose gradient was clipped to `max_grad_norm`."""
    delta: float
    """Reward shift after the phase."""
    observed: dict[str, float]
    """What the observer measured after the phase."""
    seconds: dict[str, float]
    """Wall-clock seconds by part: sample, score, reference, learn, observe."""
