"""Mixed Preference Optimization (arXiv 2411.10442): three losses as pure functions of log-probabilities.

With rho = log pi(y|x) - log pi_ref(y|x), summed over the tokens of y, end-of-sequence included:

    L_p = -log sigma(beta (rho_c - rho_r))                                  preference, DPO (arXiv 2305.18290)
    L_q = -log sigma(beta rho_c - delta) - log sigma(-(beta rho_r - delta))   quality, BCO (arXiv 2404.04656)
    L_g = -log pi(y_c|x) / |y_c|                                            generation, length-normalised likelihood
    L   = w_p L_p + w_q L_q + w_g L_g

Each function gives one value per pair; the mean is over the *global* number of pairs, so micro-batches of any size add up.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probabilities of a batch of pairs, summed over response tokens; every tensor is [pairs].

    Attributes:
        chosen, rejected: Under the policy, with gradients.
        reference_chosen, reference_rejected: Under the reference, without.
        chosen_length, rejected_length: Tokens of the responses, end-of-sequence included.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    @property
    def rho_chosen(self) -> Tensor:
        """log pi / pi_ref of the chosen responses."""
        return self.chosen - self.reference_chosen

    @property
    def rho_rejected(self) -> Tensor:
        """log pi / pi_ref of the rejected responses."""
        return self.rejected - self.reference_rejected

    def ratios(self, *, per_token: bool) -> tuple[Tensor, Tensor]:
        """rho of the chosen and of the rejected responses as the losses take it: summed over tokens, or per token."""
        if per_token:
            return self.rho_chosen / self.chosen_length, self.rho_rejected / self.rejected_length
        return self.rho_chosen, self.rho_rejected


def preference_loss(rho_chosen: Tensor, rho_rejected: Tensor, beta: float) -> Tensor:
    """L_p, one value per pair."""
    return -logsigmoid(beta * (rho_chosen - rho_rejected))


def quality_loss(rho_chosen: Tensor, rho_rejected: Tensor, beta: float, delta: float) -> Tensor:
    """L_q, one value per pair; `delta` is the reward shift, constant within an optimizer step."""
    return -logsigmoid(beta * rho_chosen - delta) - logsigmoid(-(beta * rho_rejected - delta))


def generation_loss(chosen: Tensor, chosen_length: Tensor) -> Tensor:
    """L_g, one value per pair: the chosen response's negative log-likelihood per token."""
    return -chosen / chosen_length


def mpo_losses(batch: PairLogProbs, beta: float, delta: float, *, length_normalised: bool = False) -> dict[str, Tensor]:
    """The three losses of every pair, unweighted: `preference`, `quality`, `generation`, each [pairs].

    Args:
        batch: Log-probabilities.
        beta: Strength of the reference.
        delta: Reward shift.
        length_normalised: Take rho per token, so that a long response is not pushed harder than a short one (arXiv 2405.14734
            does so without a reference); `delta` is then a mean of such ratios.
    """
    rho_chosen, rho_rejected = batch.ratios(per_token=length_normalised)
    return {
        "preference": preference_loss(rho_chosen, rho_rejected, beta),
        "quality": quality_loss(rho_chosen, rho_rejected, beta, delta),
        "generation": generation_loss(batch.chosen, batch.chosen_length),
    }


@dataclass(frozen=True)
class RewardShift:
    """delta: the cumulative mean of the implicit rewards beta rho of all chosen and rejected of *earlier* steps.

    Attributes:
        total: Sum of the implicit rewards so far.
        count: How many.
    """

    total: float = 0.0
    count: int = 0

    @property
    def delta(self) -> float:
        """The shift to use in the next step; 0 before the first."""
        return self.total / self.count if self.count else 0.0

    def after(self, rho_chosen: Tensor, rho_rejected: Tensor, beta: float) -> "RewardShift":
        """The shift after a step that saw these pairs."""
        total = beta * float(rho_chosen.detach().double().sum() + rho_rejected.detach().double().sum())
        return RewardShift(self.total + total, self.count + rho_chosen.numel() + rho_rejected.numel())

    def plus(self, other: "RewardShift") -> "RewardShift":
        """The shift after what both have seen."""
        return RewardShift(self.total + other.total, self.count + other.count)
