"""Our losses and their gradients against those of TRL's `DPOTrainer`: its own code, from its own collator on."""

import copy
import math

import pytest
import torch

from corewrite.domain import Context, Query
from corewrite.rewriter import response_log_probs
from corewrite.training import PairLogProbs, RewardShift, mpo_losses

pytest.importorskip("trl")
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

BETAS = (0.05, 0.3, 1.0)
OURS = {"sigmoid": "preference", "sigmoid_norm": "preference", "bco_pair": "quality", "sft": "generation"}
MIXTURE = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}  # the published one


class TokenIdTrainer(DPOTrainer):
    """TRL's trainer of token ids. It prepares text only, and ends every response, those cut off at the limit too."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


@pytest.fixture(scope="module")
def start(start):
    """Where TRL computes here."""
    policy = start.copy()
    policy.model.cpu()
    return policy


@pytest.fixture(scope="module")
def reference(start):
    """Another model than the policy: its weights, shaken by their own spread."""
    other, generator = start.copy(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in other.model.parameters():
            p += p.std() * torch.randn(p.shape, generator=generator).to(p.device)
    return other


@pytest.fixture(scope="module")
def pairs(start):
    """Pairs under TRL's column names: responses of 1 to 13 tokens, some of one token only, some cut off before their end."""
    encode, end = start.template.encode_target, [start.tokenizer.eos_token_id]
    cut_off = encode("bird")[:1]
    context = Context(titles=("cat show", "news", "bird game"), queries=("race", "dog show"))
    return [
        row(start, Query("cat"), encode("cat show"), encode("show show fish game")),
        row(start, Query("a strange query", Context(titles=("dog",))), encode("news"), end),
        row(start, Query("dog", context), cut_off, encode("race")),
        row(start, Query("fish"), end, cut_off),
        row(start, Query("bird"), encode("bird show " * 6), encode("bird")),
        row(start, Query("song", context), encode("dog race show"), cut_off * 9),
    ]


@pytest.fixture(scope="module")
def equal_chosen(start):
    """Pairs whose chosen responses have three tokens each; the rejected have one to six."""
    encode, end = start.template.encode_target, [start.tokenizer.eos_token_id]
    return [
        row(start, Query("cat"), encode("cat show"), encode("show show fish game bird")),
        row(start, Query("news and songs"), encode("news race"), end),
        row(start, Query("game"), encode("dog fish game")[:3], encode("game")),
    ]


def row(rewriter, query, chosen, rejected):
    return {"prompt_ids": rewriter.template.encode(query), "chosen_ids": chosen, "rejected_ids": rejected}


@pytest.fixture
def trl_trainer(start, reference, pairs, tmp_path):
    def make(losses, beta, reference=reference):
        args = DPOConfig(
            str(tmp_path), loss_type=list(losses), loss_weights=list(losses.values()), beta=beta, max_length=None, bf16=False,
            gradient_checkpointing=False, use_cpu=True, report_to="none",
        )  # fmt: skip
        # Copies: TRL replaces the forward pass of the models that it gets and writes to their configuration.
        models = copy.deepcopy(start.model).train(), copy.deepcopy(reference.model)
        return TokenIdTrainer(*models, args, train_dataset=Dataset.from_list(pairs), processing_class=start.tokenizer)

    return make


def loss_of(trainer, batch):
    return trainer.compute_loss(trainer.model, trainer.data_collator(batch))


def log_probs_of(policy, reference, batch):
    prompts, chosen, rejected = ([r[f"{name}_ids"] for r in batch] for name in ("prompt", "chosen", "rejected"))
    own = response_log_probs(policy.model, prompts * 2, chosen + rejected).sum(1).chunk(2)
    with torch.inference_mode():
        other = response_log_probs(reference.model, prompts * 2, chosen + rejected).sum(1).chunk(2)
    return PairLogProbs(*own, *other, *(torch.tensor([float(len(y)) for y in side]) for side in (chosen, rejected)))


def mean_loss(trainer, log_probs, delta=0.0):
    """Ours, with the trainer's beta and weights; rho is per token where its name says so."""
    losses = mpo_losses(log_probs, trainer.beta, delta, length_normalised="sigmoid_norm" in trainer.loss_types)
    weights = zip(trainer.loss_types, trainer.loss_weights, strict=True)
    return sum(weight * losses[OURS[name]].mean() for name, weight in weights)


def assert_same(ours, policy, theirs, trainer):
    """Values within 1e-5; the gradient of every weight within 1e-4 of the largest entry of its tensor."""
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=0, abs=1e-5)
    weights, copies = dict(policy.model.named_parameters()), dict(trainer.model.named_parameters())
    assert list(weights) == list(copies)
    gradients = (torch.autograd.grad(loss, list(of.values())) for loss, of in ((ours, weights), (theirs, copies)))
    for name, own, other in zip(weights, *gradients, strict=True):
        largest = other.abs().max()
        assert largest > 0, name
        assert (own - other).abs().max() <= 1e-4 * largest, name


def test_the_pairs_can_tell_losses_apart_and_float32_resolves_them(start, reference, pairs, equal_chosen):
    log_probs = log_probs_of(start, reference, pairs)
    rho = torch.cat([log_probs.rho_chosen, log_probs.rho_rejected]).detach()
    assert rho.abs().min() > 0.02 and rho.min() < -1 and rho.max() > 1
    for batch in (pairs, equal_chosen):
        log_probs = log_probs_of(start, reference, batch)
        for value in (log_probs.chosen, log_probs.rejected, log_probs.reference_chosen, log_probs.reference_rejected):
            assert value.min() > -64  # from there on neighbouring float32 numbers are 8e-6 apart


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    "weights", [{"sigmoid": 1.0}, {"sigmoid_norm": 1.0}, {"bco_pair": 1.0}, {"sigmoid": 0.8, "bco_pair": 0.2}], ids="-".join
)
def test_preference_and_quality_on_pairs_of_unequal_lengths(start, reference, pairs, trl_trainer, weights, beta):
    trainer = trl_trainer(weights, beta)
    assert_same(mean_loss(trainer, log_probs_of(start, reference, pairs)), start, loss_of(trainer, pairs), trainer)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("weights", [{"sft": 1.0}, MIXTURE], ids="-".join)
def test_generation_and_the_mixture_where_the_means_agree(start, reference, pairs, equal_chosen, trl_trainer, weights, beta):
    trainer = trl_trainer(weights, beta)
    for batch in (equal_chosen, *([pair] for pair in pairs)):
        assert_same(mean_loss(trainer, log_probs_of(start, reference, batch)), start, loss_of(trainer, batch), trainer)


def test_generation_is_a_mean_over_pairs_where_trl_takes_one_over_tokens(start, reference, pairs, trl_trainer):
    trainer = trl_trainer({"sft": 1.0}, 0.1)
    log_probs = log_probs_of(start, reference, pairs)
    per_pair, lengths = mpo_losses(log_probs, 0.1, 0.0)["generation"], log_probs.chosen_length
    theirs = loss_of(trainer, pairs)
    assert abs(per_pair.mean().item() - theirs.item()) > 0.01
    assert_same((per_pair * lengths).sum() / lengths.sum(), start, theirs, trainer)


def test_trl_keeps_no_running_mean(pairs, trl_trainer):
    """Its `bco_pair` has delta 0 for good. If this fails, TRL has gained a mean: pin it to 0 in the tests above."""
    trainer = trl_trainer({"bco_pair": 1.0}, 0.3)
    before = loss_of(trainer, pairs[4:]).item()
    loss_of(trainer, pairs[:4])
    assert loss_of(trainer, pairs[4:]).item() == before


@pytest.mark.parametrize("beta", BETAS)
def test_the_reward_shift_is_a_reference_raised_by_it(start, reference, pairs, trl_trainer, beta):
    """beta rho - delta = beta (log pi - (log pi_ref + delta / beta)), so TRL computes L_q for any delta.

    The raised log-probabilities go in by its columns for precomputed ones; delta is the mean of the rewards that it logged
    for the steps before, every response counted once.
    """
    trainer = trl_trainer({"bco_pair": 1.0}, beta)
    logged, shift, rewards = trainer._metrics["train"], RewardShift(), []
    for step in (pairs[:3], pairs[3:4], pairs[4:]):
        delta = sum(rewards) / len(rewards) if rewards else 0.0
        chosen, rejected = trainer.compute_ref_log_probs(trainer.ref_model, trainer.data_collator(step))
        raised = [
            pair | {"ref_chosen_logps": c + delta / beta, "ref_rejected_logps": r + delta / beta}
            for pair, c, r in zip(step, chosen.tolist(), rejected.tolist(), strict=True)
        ]
        log_probs = log_probs_of(start, reference, step)
        trainer.precompute_ref_logps = True
        assert_same(mean_loss(trainer, log_probs, shift.delta), start, loss_of(trainer, raised), trainer)
        trainer.precompute_ref_logps = False
        loss_of(trainer, step)
        rewards += [(logged["rewards/chosen"][-1] + logged["rewards/rejected"][-1]) / 2] * len(step)
        shift = shift.after(log_probs.rho_chosen, log_probs.rho_rejected, beta)
    assert abs(delta) > 0.1 * beta  # what the last step used: not the delta 0 that TRL has by itself


def test_a_reference_equal_to_the_policy_gives_ratios_of_exactly_zero(start, pairs, trl_trainer):
    policy = start.copy()
    policy.model.train()
    log_probs = log_probs_of(policy, start, pairs)
    assert log_probs.rho_chosen.tolist() == log_probs.rho_rejected.tolist() == [0.0] * len(pairs)
    losses = mpo_losses(log_probs, 0.3, 0.0)
    assert losses["preference"].tolist() == pytest.approx([math.log(2)] * len(pairs))
    assert losses["quality"].tolist() == pytest.approx([2 * math.log(2)] * len(pairs))
    trainer = trl_trainer({"sigmoid": 1.0, "bco_pair": 1.0}, 0.3, reference=start)
    assert loss_of(trainer, pairs).item() == pytest.approx(3 * math.log(2))
    assert trainer._metrics["train"]["rewards/chosen"] == trainer._metrics["train"]["rewards/rejected"] == [0.0]
