"""What training changes: policy, reference and optimizer, and where in a phase they stand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import torch

from corewrite.rewriter import Rewriter
from corewrite.training import parallel
from corewrite.training.checkpoint import RunFolder
from corewrite.training.config import TrainingConfig
from corewrite.training.gradient_pass import GradientPass
from corewrite.training.optimise import Cursor, Reference, new_optimizer, optimise, reference_log_probs
from corewrite.training.phase import Background
from corewrite.training.rollouts import Progress
from corewrite.training.rows import Row, Step, plan_steps
from corewrite.training.trained_state import load_trained, pack_state, unpack_state


@dataclass(eq=False)
class Learner:
    """The trained state of a run.

    Attributes:
        policy: Trained in place.
        reference: Frozen within a phase.
        optimizer: Lives through all phases.
        config: Settings.
        passes: What reference and policy are computed with.
        phase: The phase to begin or to go on with.
        cursor: Where in it.
    """

    policy: Rewriter
    reference: Rewriter
    optimizer: torch.optim.Optimizer
    config: TrainingConfig
    passes: GradientPass
    phase: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    _writing: Background = field(default_factory=Background, repr=False)

    @classmethod
    def resume(cls, policy: Rewriter, config: TrainingConfig, run: RunFolder) -> "Learner":
        """The state of the run's checkpoint; where there is none, a new optimizer and `policy` as its own reference.

        Raises:
            ResumeError: the checkpoint is damaged, or of another model.
        """
        passes = GradientPass(policy, config)
        # What is computed with is rounded: of the reference nothing more is needed.
        reference = policy.copy(torch.bfloat16 if passes.rounds else None)
        learner = cls(policy, reference, new_optimizer(policy, config), config, passes)
        if (state := parallel.from_first(run.state())) is not None:
            unpack_state(state.tensors, policy, learner.optimizer, learner._moving_reference)
            learner.phase, learner.cursor = state.phase, state.cursor
        return learner

    @property
    def _moving_reference(self) -> Rewriter | None:
        """The reference where it changes and so belongs into a checkpoint."""
        return self.reference if self.config.sync_ref_model else None

    def sync_reference(self) -> None:
        """Where settings say so, make the policy the reference; only before a phase's first step."""
        if self.config.sync_ref_model and not self.cursor.step:
            load_trained(self.reference, self.policy.trained_state())

    def finish_phase(self) -> None:
        """Go on to the next phase; of the cursor only the reward shift outlives the phase."""
        self.phase, self.cursor = self.phase + 1, Cursor(shift=self.cursor.shift)

    def begin_checkpoint(self, run: RunFolder) -> None:
        """Write the state beside what follows, which must not change it before `finish_checkpoint`."""
        state = pack_state(self.policy, self.optimizer, self._moving_reference)
        self._writing.start(run.state_writer(self.phase, self.cursor, state))

    def finish_checkpoint(self) -> None:
        """Wait until the state that was begun to be written is on the disk, at once where none was.

        Raises:
            CheckpointError: it could not be written.
        """
        self._writing.wait()

    def plan(self, rows: Sequence[Row], seed: int) -> list[Step]:
        """The optimizer steps of the phase, in an order keyed by (seed, phase)."""
        return plan_steps(
            rows,
            self.config.pairs_per_step,
            self.config.tokens_per_micro_batch,
            seed=seed,
            phase=self.phase,
            packed=self.policy.paths.packed,
        )

    def reference_log_probs(self, rows: Sequence[Row], steps: Sequence[Step], progress: Progress) -> Reference:
        """The reference's side of every pair in the steps that are left, see `optimise.reference_log_probs`."""
        return reference_log_probs(
            self.reference,
            rows,
            steps,
            self.config,
            self.cursor.step,
            lambda done, total: progress("reference", done, total),
            self.passes,
        )

    def optimise(
        self, rows: Sequence[Row], steps: Sequence[Step], reference: Reference, run: RunFolder, progress: Progress
    ) -> None:
        """The phase's steps from the cursor on, with a checkpoint every `checkpoint_minutes`.

        Raises:
            ValueError: a loss or gradient is not a number; the message names an instance.
            CheckpointError: a checkpoint could not be written.
        """
        # An overlapped phase's rewrites come from the weights this one began with: half-way there is no going on from there.
        pause = float("inf") if self.config.overlap else 60 * self.config.checkpoint_minutes
        last = monotonic()

        def after_step(cursor: Cursor) -> None:
            nonlocal last
            self.cursor = cursor
            progress("learn", cursor.step, len(steps))
            if monotonic() - last >= pause and cursor.step < len(steps):
                self.begin_checkpoint(run)
                self.finish_checkpoint()  # the next step changes it
                last = monotonic()

        optimise(
            self.policy,
            self.optimizer,
            rows,
            steps,
            reference,
            self.cursor,
            self.config,
            phase=self.phase,
            steps_before=run.optimizer_steps(self.phase),
            after_step=after_step,
            gradient_pass=self.passes,
        )
