"""MPO losses against the golden values of the paper's formulas, computed by hand."""

import math

import pytest
import torch

from corewrite.training import PairLogProbs, RewardShift, generation_loss, mpo_losses, preference_loss, quality_loss

RHO_C, RHO_R = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 1.5])
WEIGHTS = {"preference": 0.8, "quality": 0.2, "generation": 1.0}


def total(delta: float) -> float:
    batch = PairLogProbs(
        chosen=torch.tensor([-6.0, -4.0]), rejected=torch.zeros(2), reference_chosen=torch.tensor([-6.0, -4.0]) - RHO_C,
        reference_rejected=-RHO_R, chosen_length=torch.tensor([3.0, 8.0]),
        rejected_length=torch.tensor([4.0, 2.0]),
    )  # fmt: skip
    losses = mpo_losses(batch, 0.1, delta)
    return sum(WEIGHTS[name] * float(value.mean()) for name, value in losses.items())


def test_golden_values():
    assert float(preference_loss(RHO_C, RHO_R, 0.1).mean()) == pytest.approx(0.6493760, abs=1e-6)
    assert float(quality_loss(RHO_C, RHO_R, 0.1, 0.0).mean()) == pytest.approx(1.3409761, abs=1e-6)
    assert float(quality_loss(RHO_C, RHO_R, 0.1, 0.075).mean()) == pytest.approx(1.3395725, abs=1e-6)
    assert float(generation_loss(torch.tensor([-6.0, -4.0]), torch.tensor([3.0, 8.0])).mean()) == 1.25
    assert total(0.0) == pytest.approx(2.0376960, abs=1e-6)
    assert total(0.075) == pytest.approx(2.0374153, abs=1e-6)


def test_policy_equal_to_reference_gives_the_logarithms_of_two():
    log_probs = torch.tensor([-3.0, -9.5])
    batch = PairLogProbs(log_probs, log_probs - 1, log_probs, log_probs - 1, torch.tensor([2.0, 5.0]), torch.tensor([1.0, 7.0]))
    assert (batch.rho_chosen == 0).all() and (batch.rho_rejected == 0).all()
    losses = mpo_losses(batch, 0.3, 0.0)
    assert losses["preference"].tolist() == pytest.approx([math.log(2)] * 2)
    assert losses["quality"].tolist() == pytest.approx([2 * math.log(2)] * 2)


def test_every_term_has_its_own_gradient():
    """A term that disappeared would leave its gradient at zero."""
    for name, rejected_moves in (("preference", True), ("quality", True), ("generation", False)):
        chosen = torch.tensor([-2.0], requires_grad=True)
        rejected = torch.tensor([-3.0], requires_grad=True)
        batch = PairLogProbs(
            chosen, rejected, torch.tensor([-2.5]), torch.tensor([-2.5]), torch.tensor([4.0]), torch.tensor([2.0])
        )
        mpo_losses(batch, 0.1, 0.0)[name].sum().backward()
        assert chosen.grad is not None and chosen.grad.item() < 0, f"{name} must raise the chosen response"
        assert (rejected.grad is not None and rejected.grad.item() > 0) == rejected_moves


def test_reward_shift_is_the_mean_over_earlier_steps_only():
    shift = RewardShift()
    assert shift.delta == 0.0
    shift = shift.after(RHO_C, RHO_R, 0.1)
    assert shift.delta == pytest.approx(0.075)  # 0.1 * (2 + 0.5 - 1 + 1.5) / 4
    shift = shift.after(torch.tensor([4.0]), torch.tensor([0.0]), 0.1)
    assert shift.delta == pytest.approx((0.3 + 0.4) / 6)


def test_length_normalised_ratios_are_per_token():
    batch = PairLogProbs(
        torch.tensor([-6.0]), torch.tensor([-8.0]), torch.tensor([-9.0]), torch.tensor([-4.0]), torch.tensor([3.0]),
        torch.tensor([2.0]),
    )  # fmt: skip
    losses = mpo_losses(batch, 0.5, 0.25, length_normalised=True)
    # rho is 3 over 3 tokens and -4 over 2: 1 and -2 a token.
    assert losses["preference"].item() == pytest.approx(math.log(1 + math.exp(-0.5 * 3)))
    assert losses["quality"].item() == pytest.approx(math.log(1 + math.exp(-0.25)) + math.log(1 + math.exp(-1.25)))
    assert losses["generation"].item() == 2.0


def test_shifts_of_parts_add_up_to_that_of_the_whole():
    whole = RewardShift().after(RHO_C, RHO_R, 0.3)
    parts = [RewardShift().after(RHO_C[i : i + 1], RHO_R[i : i + 1], 0.3) for i in range(2)]
    assert parts[0].plus(parts[1]).total == pytest.approx(whole.total) and parts[0].plus(parts[1]).count == whole.count == 4
