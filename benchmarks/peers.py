"""The peers of the training benchmark: TRL's trainers and the sampler of transformers, on our model, prompts and reward.

    python benchmarks/peers.py      # checks them on a tiny model

Every trainer is TRL's, called through its own arguments, with what only costs time switched off (gradient checkpointing,
logging, reports, checkpoints, progress bars) and the rest at its defaults but for `PeerSettings`. Where a public argument does
not reach, a subclass changes one method and says so. Weights are trained in place; warming up trains a copy.
"""

import copy
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import datasets
import torch
import trl.trainer.utils
from datasets import Dataset
from huggingface_hub import constants
from torch import Tensor
from transformers import GenerationConfig, PrinterCallback, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
from trl.trainer.utils import pad

from corewrite.rewriter import Rewriter, new_small_decoder

os.environ["TQDM_DISABLE"] = "1"  # DPO's precomputation asks for it there
constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL reports every trainer made
datasets.disable_progress_bars()

Ids = Sequence[int]
Reward = Callable[[Sequence[int], Sequence[Ids]], Sequence[float]]
"""Rewards of completions: (prompt index of each, token ids of each, end-of-sequence included) to one float each."""
Pair = tuple[Ids, Ids, Ids]
"""Prompt, chosen and rejected response ids, both responses with end-of-sequence."""

_ENDLESS = 10**6
_ROWS = 256


@dataclass(frozen=True)
class PeerSettings:
    """What the benchmark sets, and sweeps; everything else is TRL's default.

    Attributes:
        learning_rate: Of AdamW, constant (a run stopped by the clock has no schedule to finish).
        per_device_train_batch_size: Of a micro-batch: completions for GRPO and RLOO, pairs for DPO, prompts for online DPO.
        max_new_tokens: Length limit of a completion, tokens.
        min_new_tokens: No end-of-sequence before so many tokens; for timings at equal lengths only.
        num_generations: Completions of a prompt. Online DPO knows 2 only.
        gradient_accumulation_steps: Micro-batches of an optimizer step.
        steps_per_generation: micro-batches of GRPO or RLOO per call of the sampler; TRL default: of one step.
        seed: Of everything random.
        bf16: Autocast to bfloat16.
        head_on_response_only: Whether the LM head is spared at prompt positions where TRL would not (see `narrow_head`).
        beta: Of DPO and online DPO. GRPO has TRL's default, no KL term, and RLOO none either.
        dpo_loss: Loss types of DPO; ("sigmoid", "bco_pair", "sft") is TRL's own MPO.
        dpo_weights: Their weights; all 1 if not given.
    """

    learning_rate: float
    per_device_train_batch_size: int
    max_new_tokens: int
    min_new_tokens: int = 0
    num_generations: int = 16
    gradient_accumulation_steps: int = 1
    steps_per_generation: int | None = None
    seed: int = 0
    bf16: bool = False
    head_on_response_only: bool = False
    beta: float = 0.1
    dpo_loss: tuple[str, ...] = ("sigmoid",)
    dpo_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PeerResult:
    """One timed run.

    Attributes:
        seconds: From the first batch to the last optimizer step; making the trainer is outside.
        steps: Optimizer steps.
        instances: Prompts seen (of passes over pairs: distinct prompts).
        rollouts: Completions sampled, or trained on where none is sampled.
        loss: Mean training loss.
        reference_seconds: DPO's precomputation of reference log-probabilities, outside `seconds`.
    """

    seconds: float
    steps: int
    instances: int
    rollouts: int
    loss: float
    reference_seconds: float = 0.0


class Clock(TrainerCallback):
    """Times `train` and stops it after the first optimizer step that ends beyond the limit."""

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.start = self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.limit is not None and time.perf_counter() - self.start >= self.limit:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds = _now() - self.start


class Runner(ABC):
    """A TRL trainer on one rewriter: `warm_up` once, then `run` as often as wanted.

    Args:
        rewriter: Its weights are trained in place by `run`.
        settings: What is set.
    """

    def __init__(self, rewriter: Rewriter, settings: PeerSettings) -> None:
        self.rewriter, self.settings = rewriter, settings

    @abstractmethod
    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        """A fresh trainer for so many optimizer steps, or for one pass over the data."""

    @abstractmethod
    def rows(self) -> set[tuple[int, ...]]:
        """All that the model may have been shown up to now: prompts, and prompts with a response."""

    def warm_up(self) -> None:
        """One optimizer step on a copy, and proof that the model is shown our token ids and no others.

        Raises:
            RuntimeError: it was shown something else.
        """
        twin, shown = self.rewriter.copy(), set()

        def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids, mask = args[0] if args else kwargs["input_ids"], kwargs.get("attention_mask")
            if ids.shape[1] > 1:  # a decoding step shows one token
                used = torch.ones_like(ids) if mask is None else mask
                shown.update(tuple(row[u.bool()].tolist()) for row, u in zip(ids, used, strict=True))

        twin.model.register_forward_pre_hook(look, with_kwargs=True)
        self.train(twin, 1)
        if not shown or shown - self.rows():
            raise RuntimeError(f"{len(shown - self.rows())} of {len(shown)} rows that the model was shown are not ours")

    def train(
        self, policy: Rewriter, steps: int | None, seconds: float | None = None, callbacks: Sequence[TrainerCallback] = ()
    ) -> tuple[Clock, Trainer, float]:
        """Train and give the model back unpatched: the clock, the trainer and the mean loss."""
        clock = Clock(seconds)
        with _lent(policy), narrow_head(self.settings.head_on_response_only):
            trainer = self.trainer(policy, steps)
            trainer.remove_callback(PrinterCallback)
            for callback in (*callbacks, clock):
                trainer.add_callback(callback)
            loss = trainer.train().training_loss
        return clock, trainer, float(loss)

    def arguments(self, steps: int | None) -> dict[str, Any]:
        """Arguments common to all trainers."""
        cuda, s = torch.cuda.is_available(), self.settings
        return {
            "learning_rate": s.learning_rate, "lr_scheduler_type": "constant", "seed": s.seed, "bf16": s.bf16,
            "per_device_train_batch_size": s.per_device_train_batch_size,
            "gradient_accumulation_steps": s.gradient_accumulation_steps,
            "num_train_epochs": 1, "max_steps": -1 if steps is None else steps,
            "activation_checkpointing": False, "use_cpu": not cuda, "dataloader_pin_memory": cuda,
            "report_to": "none", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
            "output_dir": tempfile.gettempdir(),
        }  # fmt: skip


class _Sampling(Runner):
    """A trainer that samples for itself."""

    generations: int
    """Completions of a prompt."""

    def __init__(self, rewriter: Rewriter, prompts: Sequence[Ids], reward: Reward, settings: PeerSettings) -> None:
        super().__init__(rewriter, settings)
        self.prompts, self.reward = [list(p) for p in prompts], reward
        self.sampled: list[tuple[int, Ids]] = []
        self.dataset = Dataset.from_dict({"prompt": [str(i) for i in range(len(prompts))], "index": list(range(len(prompts)))})
        self.tokenizer = _addressed(rewriter.tokenizer, self.prompts)

    def run(self, instances: int | None = None, seconds: float | None = None) -> PeerResult:
        """Train until so many instances were seen, or for so many seconds.

        Args:
            instances: Prompts, counted each time they are sampled from; rounded up to whole optimizer steps.
            seconds: Wall time after which no further optimizer step begins.

        Raises:
            ValueError: neither or both are given.
        """
        if (instances is None) == (seconds is None):
            raise ValueError("give instances or seconds")
        steps = _ENDLESS if instances is None else -(-instances * self.generations // self.per_step())
        self.sampled.clear()
        clock, trainer, loss = self.train(self.rewriter, steps, seconds)
        rollouts = len(self.sampled)
        return PeerResult(clock.seconds, trainer.state.global_step, rollouts // self.generations, rollouts, loss)

    @abstractmethod
    def per_step(self) -> int:
        """Completions of an optimizer step."""

    def score(self, completion_ids: Sequence[Ids], index: Sequence[int], **_: Any) -> list[float]:
        """Our reward as TRL calls it."""
        completions = [_ended(ids, self.rewriter.tokenizer.eos_token_id) for ids in completion_ids]
        self.sampled += zip(index, completions, strict=True)
        return [float(r) for r in self.reward(index, completions)]

    def rows(self) -> set[tuple[int, ...]]:
        return {*map(tuple, self.prompts), *((*self.prompts[i], *ids) for i, ids in self.sampled)}

    def minimum(self) -> dict[str, int] | None:
        """Arguments of `generate` beside TRL's own."""
        return {"min_new_tokens": self.settings.min_new_tokens} if self.settings.min_new_tokens else None


class _Grpo(_Sampling):
    def __init__(self, rewriter: Rewriter, prompts: Sequence[Ids], reward: Reward, settings: PeerSettings) -> None:
        super().__init__(rewriter, prompts, reward, settings)
        self.generations = settings.num_generations

    def per_step(self) -> int:
        return self.settings.per_device_train_batch_size * self.settings.gradient_accumulation_steps

    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        args = _grpo_config(self.settings, self.arguments(steps), generation_kwargs=self.minimum())
        _fits(args.generation_batch_size // args.num_generations, len(self.prompts))
        return GRPOTrainer(policy.model, [self.score], args, self.dataset, processing_class=self.tokenizer)


class _Rloo(_Grpo):
    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        s = self.settings
        # As GRPO by default: no penalty of divergence, and so no second model, which TRL would load by the first one's name.
        args = RLOOConfig(
            **self.arguments(steps), generation_kwargs=self.minimum(), num_generations=s.num_generations, beta=0.0,
            max_completion_length=s.max_new_tokens, steps_per_generation=s.steps_per_generation,
        )  # fmt: skip
        _fits(args.generation_batch_size // args.num_generations, len(self.prompts))
        return RLOOTrainer(policy.model, [self.score], args, self.dataset, processing_class=self.tokenizer)


class _OnlineDpo(_Sampling):
    generations = 2

    def per_step(self) -> int:
        return self.generations * self.settings.per_device_train_batch_size

    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        s = self.settings
        if s.gradient_accumulation_steps != 1:
            raise ValueError("OnlineDPOTrainer does not divide its loss by gradient_accumulation_steps: use 1")
        _fits(s.per_device_train_batch_size, len(self.prompts))
        args = OnlineDPOConfig(
            **self.arguments(steps), max_new_tokens=s.max_new_tokens, temperature=1.0, beta=[s.beta], dataloader_drop_last=True,
            max_length=max(map(len, self.prompts)) + s.max_new_tokens, generation_kwargs=self.minimum(),
        )  # fmt: skip
        kind = _NarrowOnlineDpo if s.head_on_response_only else OnlineDPOTrainer
        return kind(
            policy.model, reward_funcs=[self.score], args=args, train_dataset=self.dataset, processing_class=self.tokenizer
        )


class _NarrowOnlineDpo(OnlineDPOTrainer):
    """Asks the model for the logits that it uses; as shipped, on any device, it asks for all and slices."""

    def _forward(
        self, model: Any, prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor,
        vision_inputs: None = None,
    ) -> Tensor:  # fmt: skip
        ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
        logits = model(ids, attention_mask=mask, logits_to_keep=completion_ids.shape[1] + 1).logits[:, :-1]
        return torch.take_along_dim(logits.log_softmax(-1), completion_ids[..., None], 2)[..., 0]


class _GrpoPass(Runner):
    def __init__(
        self, rewriter: Rewriter, prompts: Sequence[Ids], completions: Sequence[Sequence[Ids]],
        advantages: Sequence[Sequence[float]], settings: PeerSettings,
    ) -> None:  # fmt: skip
        n = settings.num_generations
        if any(len(c) != n or len(a) != n for c, a in zip(completions, advantages, strict=True)):
            raise ValueError(f"give {n} completions and advantages for each of the {len(prompts)} prompts")
        super().__init__(rewriter, settings)
        self.prompts, self.completions, self.advantages = prompts, completions, advantages
        self.dataset = Dataset.from_dict({"prompt": [str(i) for i in range(len(prompts))], "index": list(range(len(prompts)))})

    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        args = _grpo_config(self.settings, self.arguments(steps))
        _fits(args.generation_batch_size // args.num_generations, len(self.prompts))
        trainer = _GivenRollouts(policy.model, [_never], args, self.dataset, processing_class=self.rewriter.tokenizer)
        trainer.given = self
        return trainer

    def run(self) -> PeerResult:
        """One pass over all completions of all prompts that fill whole batches."""
        clock, trainer, loss = self.train(self.rewriter, None)
        steps, n = trainer.state.global_step, self.settings.num_generations
        rollouts = steps * self.settings.per_device_train_batch_size * self.settings.gradient_accumulation_steps
        return PeerResult(clock.seconds, steps, rollouts // n, rollouts, loss)

    def rows(self) -> set[tuple[int, ...]]:
        return {(*p, *c) for p, each in zip(self.prompts, self.completions, strict=True) for c in each}


class _GivenRollouts(GRPOTrainer):
    """GRPO on completions given beforehand: sampling and scoring are replaced, batches, loss and steps are TRL's."""

    given: _GrpoPass

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        drawn = [(x["index"], j % self.num_generations) for j, x in enumerate(inputs)]  # a prompt's draws lie side by side
        prompts = [torch.tensor(list(self.given.prompts[i])) for i, _ in drawn]
        completions = [torch.tensor(list(self.given.completions[i][j])) for i, j in drawn]
        batch = {
            "prompt_ids": pad(prompts, padding_value=self._tokenizer.pad_token_id, padding_side="left"),
            "prompt_mask": pad([torch.ones_like(p) for p in prompts], padding_value=0, padding_side="left"),
            "completion_ids": pad(completions, padding_value=self._tokenizer.pad_token_id, padding_side="right"),
            "completion_mask": pad([torch.ones_like(c) for c in completions], padding_value=0, padding_side="right"),
            "advantages": torch.tensor([self.given.advantages[i][j] for i, j in drawn]),
        }
        batch["num_items_in_batch"] = batch["completion_mask"].sum()
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}


class _DpoPass(Runner):
    """One pass over pairs.

    Args:
        reference: The frozen policy; the rewriter itself, as it is when a run begins, if not given.
        optimizer: To go on with.
    """

    def __init__(
        self, rewriter: Rewriter, reference: Rewriter | None, pairs: Sequence[Pair], settings: PeerSettings,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:  # fmt: skip
        super().__init__(rewriter, settings)
        self.reference, self.pairs, self.optimizer = reference, pairs, optimizer
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        self.dataset = Dataset.from_dict({name: [list(p[i]) for p in pairs] for i, name in enumerate(columns)})

    def trainer(self, policy: Rewriter, steps: int | None) -> Trainer:
        s = self.settings
        args = DPOConfig(
            **self.arguments(steps), beta=s.beta, loss_type=list(s.dpo_loss), max_length=None, precompute_ref_log_probs=True,
            loss_weights=None if s.dpo_weights is None else list(s.dpo_weights),
        )  # fmt: skip
        return _TokenisedDpo(
            policy.model, None if self.reference is None else self.reference.model, args, train_dataset=self.dataset,
            processing_class=self.rewriter.tokenizer, optimizers=(self.optimizer if policy is self.rewriter else None, None),
        )  # fmt: skip

    def train(
        self, policy: Rewriter, steps: int | None, seconds: float | None = None, callbacks: Sequence[TrainerCallback] = ()
    ) -> tuple[Clock, Trainer, float]:
        if self.reference is None:
            return super().train(policy, steps, seconds, callbacks)
        with _lent(self.reference):
            return super().train(policy, steps, seconds, callbacks)

    def run(self) -> PeerResult:
        """One pass over all pairs."""
        clock, trainer, loss = self.train(self.rewriter, None)
        self.optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # unwrapped from Accelerate's
        prompts = len({tuple(p[0]) for p in self.pairs})
        return PeerResult(
            clock.seconds, trainer.state.global_step, prompts, 2 * len(self.pairs), loss, trainer.reference_seconds
        )

    def rows(self) -> set[tuple[int, ...]]:
        return {(*p, *y) for p, chosen, rejected in self.pairs for y in (chosen, rejected)}


class _TokenisedDpo(DPOTrainer):
    """DPO on token ids: its data set is left as given, where TRL 1.16 would want text to tokenise; its collator takes ids."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Dataset:
        start = _now()
        dataset = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds = _now() - start
        return dataset


class IterativeDpo:
    """DPO in phases, over pairs that someone else sampled and selected; the optimizer's state is carried on.

    Args:
        rewriter: Trained in place.
        settings: What is set.
        reference: The frozen policy of all phases; the policy at the begin of each phase if not given, TRL's default.
    """

    def __init__(self, rewriter: Rewriter, settings: PeerSettings, reference: Rewriter | None = None) -> None:
        self.rewriter, self.settings, self.reference = rewriter, settings, reference
        self._optimizer: torch.optim.Optimizer | None = None

    def warm_up(self, pairs: Sequence[Pair]) -> None:
        """As `Runner.warm_up`."""
        _DpoPass(self.rewriter, self.reference, pairs, self.settings).warm_up()

    def phase(self, pairs: Sequence[Pair]) -> PeerResult:
        """One pass over a phase's pairs."""
        once = _DpoPass(self.rewriter, self.reference, pairs, self.settings, self._optimizer)
        result = once.run()
        self._optimizer = once.optimizer
        return result


def grpo(rewriter: Rewriter, prompts: Sequence[Ids], reward: Reward, settings: PeerSettings) -> _Sampling:
    """TRL's `GRPOTrainer`."""
    return _Grpo(rewriter, prompts, reward, settings)


def rloo(rewriter: Rewriter, prompts: Sequence[Ids], reward: Reward, settings: PeerSettings) -> _Sampling:
    """TRL's `RLOOTrainer` (arXiv 2402.14740): each completion against the mean of its prompt's others."""
    return _Rloo(rewriter, prompts, reward, settings)


def online_dpo(rewriter: Rewriter, prompts: Sequence[Ids], reward: Reward, settings: PeerSettings) -> _Sampling:
    """TRL's `OnlineDPOTrainer` (experimental in 1.16): two completions of a prompt, the better is chosen."""
    return _OnlineDpo(rewriter, prompts, reward, settings)


def grpo_pass(
    rewriter: Rewriter, prompts: Sequence[Ids], completions: Sequence[Sequence[Ids]], advantages: Sequence[Sequence[float]],
    settings: PeerSettings,
) -> _GrpoPass:  # fmt: skip
    """GRPO's forward, backward and optimizer steps on given completions, `num_generations` of every prompt."""
    return _GrpoPass(rewriter, prompts, completions, advantages, settings)


def dpo_pass(rewriter: Rewriter, reference: Rewriter, pairs: Sequence[Pair], settings: PeerSettings) -> _DpoPass:
    """DPO's forward, backward and optimizer steps on given pairs, reference log-probabilities computed before."""
    return _DpoPass(rewriter, reference, pairs, settings)


def iterative_dpo(rewriter: Rewriter, settings: PeerSettings, reference: Rewriter | None = None) -> IterativeDpo:
    """`DPOTrainer` phase by phase, for pairs from our sampler: tells the algorithm from the engine."""
    return IterativeDpo(rewriter, settings, reference)


@torch.inference_mode()
def generate_baseline(
    rewriter: Rewriter, prompts: Sequence[Ids], n: int, max_new_tokens: int, min_new_tokens: int = 0, rows: int = _ROWS
) -> list[list[list[int]]]:
    """`n` samples of every prompt by `generate(num_return_sequences=n)`: the sampler's peer.

    Args:
        rewriter: The policy.
        prompts: Prompt ids. Batched in order of length, so that little is padded.
        n: Samples of each.
        max_new_tokens, min_new_tokens: Length limits, tokens.
        rows: Sequences of a batch, in multiples of `n`.

    Returns:
        Token ids, end-of-sequence included where reached.
    """
    model, tokenizer = rewriter.model.eval(), rewriter.tokenizer
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=n, max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens or None, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        use_cache=True,
    )  # fmt: skip
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, list[list[int]]] = {}
    a_batch = max(1, rows // n)
    for part in (order[i : i + a_batch] for i in range(0, len(order), a_batch)):
        inputs = {k: v.to(model.device) for k, v in _left_padded(tokenizer, [prompts[i] for i in part]).items()}
        out = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :].tolist()
        for k, i in enumerate(part):
            found[i] = [_ended(ids, tokenizer.eos_token_id) for ids in out[k * n : (k + 1) * n]]
    return [found[i] for i in range(len(prompts))]


@contextmanager
def narrow_head(enabled: bool) -> Iterator[None]:
    """Have TRL's DPO, GRPO and RLOO score the LM head at response positions only, on a CPU too.

    Their fused head has both ways: where Triton runs it gathers the labelled positions first, elsewhere it scores every
    position, prompt and padding included, and masks the results. This takes the first way; the kernels stay the device's.
    """
    shipped = trl.trainer.utils._use_triton
    if enabled:
        trl.trainer.utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = shipped


@contextmanager
def _lent(rewriter: Rewriter) -> Iterator[None]:
    """Lend a model to a trainer and take back its patches: forward (fused head, autocast), use_cache, mode and gradients."""
    model = rewriter.model
    model.generation_config.eos_token_id = rewriter.tokenizer.eos_token_id  # a sequence ends where ours does
    model.generation_config.use_cache = True
    caches = model.config.use_cache
    try:
        yield
    finally:
        # Copies share the config: left off, the next one would sample without a cache, and TRL look slow.
        model.config.use_cache = caches
        for patched in ("forward", "_original_forward"):
            model.__dict__.pop(patched, None)
        model.zero_grad(set_to_none=True)
        model.eval()


def _grpo_config(settings: PeerSettings, arguments: dict[str, Any], **more: Any) -> GRPOConfig:
    return GRPOConfig(
        **arguments, **more, num_generations=settings.num_generations, max_completion_length=settings.max_new_tokens,
        steps_per_generation=settings.steps_per_generation,
    )  # fmt: skip


def _fits(batch: int, prompts: int) -> None:
    if batch > prompts:
        raise ValueError(f"a batch takes {batch} prompts and there are {prompts}: lower per_device_train_batch_size")


def _never(**_: Any) -> list[float]:
    raise RuntimeError("advantages are given: nothing is to be scored")


def _addressed(tokenizer: Any, prompts: Sequence[Ids]) -> Any:
    """The tokenizer, but the text "17" stands for prompt 17.

    TRL's online trainers take text only, and no text is sure to come back as our ids (the template joins pieces that were
    encoded apart and cut). A processing class of one's own is an argument of theirs, so the trainers stay as shipped.
    """

    class Addressed(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: Sequence[str], **kwargs: Any) -> dict[str, Any]:
            ids = [prompts[int(t)] for t in text]
            return _left_padded(self, ids) if kwargs.get("padding") else {"input_ids": ids}

    twin = copy.deepcopy(tokenizer)
    twin.__class__ = Addressed
    return twin


def _left_padded(tokenizer: Any, prompts: Sequence[Ids]) -> dict[str, Tensor]:
    rows = [torch.tensor(list(p)) for p in prompts]
    return {
        "input_ids": pad(rows, padding_value=tokenizer.pad_token_id, padding_side="left"),
        "attention_mask": pad([torch.ones_like(r) for r in rows], padding_value=0, padding_side="left"),
    }


def _ended(ids: Ids, eos: int) -> list[int]:
    """Ids up to the end of the sequence, without the padding behind it."""
    ids = list(ids)
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class _Watch(TrainerCallback):
    """Keeps the gradients of the first optimizer step and counts the positions at which the LM head was applied."""

    def __init__(self, policy: Rewriter) -> None:
        self.of: dict[str, Tensor] = {}
        self.positions = 0
        policy.model.get_output_embeddings().register_forward_hook(lambda _, args, out: self._count(args[0]))

    def _count(self, hidden: Tensor) -> None:
        self.positions += hidden.shape[:-1].numel()

    @contextmanager
    def on_fused_head(self) -> Iterator[None]:
        """Count in TRL's fused head too, which takes the head's weight and not its module."""
        fused = trl.trainer.utils._ChunkedLogProbFunction

        class Counted:
            @staticmethod
            def apply(hidden: Tensor, *rest: Any) -> Any:
                self._count(hidden)
                return fused.apply(hidden, *rest)

        trl.trainer.utils._ChunkedLogProbFunction = Counted
        try:
            yield
        finally:
            trl.trainer.utils._ChunkedLogProbFunction = fused

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.of = self.of or {name: p.grad.clone() for name, p in model.named_parameters()}


def main() -> None:
    words = ["red lion trailer", "how to cook rice", "boil eggs", "funny cats", "lion dance", "zebra in the zoo"]
    policy = new_small_decoder(words * 10, seed=1, vocabulary=300, width=32, layers=2, heads=2)
    other = new_small_decoder(words * 10, seed=2, vocabulary=300, width=32, layers=2, heads=2)  # so that DPO's loss is not ln 2
    eos = policy.tokenizer.eos_token_id
    prompts = [list(policy.template.encode_text(" ".join(words[i % 6 : 3 + i % 6])))[: 4 + 3 * i] for i in range(8)]
    settings = PeerSettings(learning_rate=1e-3, per_device_train_batch_size=16, max_new_tokens=5, num_generations=4)
    chosen = [*policy.template.encode_text("red lion"), eos]
    pairs = [(p, chosen, [*chosen[i % 2 : 2], eos]) for i, p in enumerate(prompts)]
    completions = [[chosen[j:] for j in range(2)] * 2 for _ in prompts]
    advantages = [[1.0, -1.0, 0.5, -0.5]] * len(prompts)

    def reward(index: Sequence[int], ids: Sequence[Ids]) -> list[float]:
        return [len(set(y)) / 5 + i / 100 for i, y in zip(index, ids, strict=True)]

    pairs_at_once = replace(settings, per_device_train_batch_size=4)
    makers: dict[str, Callable[[Rewriter, bool], Runner]] = {
        "grpo": lambda p, narrow: grpo(p, prompts, reward, replace(settings, head_on_response_only=narrow)),
        "rloo": lambda p, narrow: rloo(p, prompts, reward, replace(settings, head_on_response_only=narrow)),
        "online_dpo": lambda p, narrow: online_dpo(
            p, prompts, reward, replace(pairs_at_once, beta=1.0, head_on_response_only=narrow)
        ),
        "dpo_pass": lambda p, narrow: dpo_pass(p, other, pairs, replace(pairs_at_once, head_on_response_only=narrow)),
        "grpo_pass": lambda p, narrow: grpo_pass(
            p, prompts, completions, advantages, replace(settings, head_on_response_only=narrow)
        ),
    }
    for name, make in makers.items():
        losses, watches = [], []
        for narrow in (False, True):
            twin = policy.copy()
            watch = _Watch(twin)
            with watch.on_fused_head():
                losses.append(make(policy, narrow).train(twin, 2, callbacks=[watch])[2])
            watches.append(watch)
        shipped, narrowed = watches
        largest = max(float(g.abs().max()) for g in shipped.of.values())
        apart = max(float((g - narrowed.of[key]).abs().max()) for key, g in shipped.of.items()) / largest
        if abs(losses[0] - losses[1]) > 1e-5 or apart > 1e-4 or narrowed.positions >= shipped.positions:
            raise AssertionError(
                f"{name}: losses {losses}, gradients {apart:.1e} apart, {shipped.positions}, {narrowed.positions}"
            )
        runner = make(policy.copy(), True)
        runner.warm_up()
        before = runner.rewriter.policy_hash
        result = runner.run(instances=len(prompts)) if isinstance(runner, _Sampling) else runner.run()
        if runner.rewriter.policy_hash == before or "forward" in vars(runner.rewriter.model):
            raise AssertionError(f"{name}: the model was not trained, or not given back")
        print(
            f"{name}: losses {losses[0]:.7f} and {losses[1]:.7f}, gradients {apart:.1e} apart, "
            f"LM head at {shipped.positions} and {narrowed.positions} positions; {result}"
        )

    clocked = grpo(policy.copy(), prompts, reward, settings)
    result = clocked.run(seconds=0.5)
    if not 0.5 <= result.seconds < 5:
        raise AssertionError(f"0.5 seconds became {result.seconds}")
    print(f"grpo by the clock: {result}")

    mpo = replace(pairs_at_once, dpo_loss=("sigmoid", "bco_pair", "sft"), dpo_weights=(0.8, 0.2, 1.0))
    phases = iterative_dpo(policy.copy(), mpo)
    phases.warm_up(pairs)
    print(f"iterative_dpo: {[phases.phase(pairs) for _ in range(2)]}")

    drawn = generate_baseline(policy, prompts, 1000, 1, rows=4000)
    distinct = len({ids[0] for ids in drawn[0]})
    if len(drawn) != len(prompts) or distinct <= 50:  # 50 is the top-k that generate would take by itself
        raise AssertionError(f"{distinct} distinct tokens among 1000 draws")
    print(f"generate_baseline: {distinct} distinct first tokens among 1000 draws of {len(policy.tokenizer)}")


if __name__ == "__main__":
    main()
