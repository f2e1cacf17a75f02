"""What a behaviour will hold at its peak, known before its first decision.

Memory does not grow while a run goes on: the step log has `buffer_size` rows and some more, and
everything else lives for one update. So the peak of the first update is that of all others.

Letters: B rows of a rollout, C continuous action size, K discrete branches, L sum of branch sizes,
R reward signals, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.spec import BehaviorSpec
from trainer.available_memory import Available
from trainer.config.settings import BehaviorSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.rollout.minibatch import REORDERED_BYTES
from trainer.rollout.steplog import StepLog

FLOAT = 4
# Columns (B, R) or (B,) of floats that lie there at once while advantages are estimated: rewards,
# values, what follows, differences, decays, and two generations of either sum.
OF_ESTIMATING = 10
# Of P floats: gradient, two moments, and policy, moments as they were before (`divergence.Before`).
OF_WEIGHTS = 6
# What backward adds to what forward has kept; measured, images and vectors.
OF_BACKWARD = 1.25
KEEPS_OLD_DISTRIBUTION = ("ppo_kl", "trpo", "npg")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes of one behaviour at the peak of an update."""

    num_rows: int  # of a rollout
    step_log: int  # on the CPU, always
    rollout: int  # taken from it; where the networks are
    columns: int  # that an update makes of it: normalised inputs, values, advantages
    minibatch: int  # rows in a new order, layers and gradients
    weights: int  # optimizer, and what an update that diverges goes back to
    is_on_cpu: bool = True

    @property
    def of_update(self) -> int:
        """What lives for one update only."""
        return self.rollout + self.columns + self.minibatch + self.weights

    @property
    def of_host(self) -> int:
        """What the machine's own memory has to hold."""
        return self.step_log + (self.of_update if self.is_on_cpu else self.rollout)

    @property
    def total(self) -> int:
        """All of it, wherever it lies."""
        return self.step_log + self.of_update

    @property
    def words(self) -> str:
        """Says it to the user."""
        if not self.of_update:
            return f"this run will hold {size(self.step_log)} of decisions"
        return (
            f"this run will hold {size(self.total)} of rollouts: step log {size(self.step_log)}, "
            f"and while it learns {size(self.rollout)} taken from it, {size(self.columns)} of "
            f"inputs and estimates, {size(self.minibatch)} for a minibatch, {size(self.weights)} "
            f"of weights"
        )


def size(num_bytes: float) -> str:
    """Writes bytes as people do: 1.2 GB, 27 MB."""
    megabytes = num_bytes / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def memory_budget(
    spec: BehaviorSpec,
    settings: BehaviorSettings,
    policy: ActorCritic,
    log: StepLog,
    *,
    is_training: bool,
) -> MemoryBudget:
    """Adds up what a behaviour will hold; asks its network for a few rows.

    Args:
        spec: of the behaviour.
        settings: its own.
        policy: on its final device.
        log: as built, empty or not.
        is_training: False: nothing but the step log.
    """
    hyperparameters = settings.hyperparameters
    num_rows = hyperparameters.buffer_size
    of_log = log.row_bytes
    step_log = num_rows * sum(of_log.values())
    is_on_cpu = next(policy.parameters()).device.type == "cpu"
    if not is_training:
        return MemoryBudget(num_rows, step_log, 0, 0, 0, 0, is_on_cpu)

    num_signals = len(settings.reward_signals)
    obs_bytes = sum(of_log[f"obs_{i}"] for i in range(len(spec.observation_specs)))
    actions = ("continuous", "discrete", "log_probs", "action_mask")
    action_bytes = sum(of_log.get(name, 0) for name in actions)
    # Each segment brings along what follows it.
    rollout_row = obs_bytes * (1 + 1 / settings.time_horizon) + action_bytes
    rollout_row += FLOAT * (1 + num_signals)

    sizes = policy.sensors.vector_sizes
    vectors = FLOAT * sum(sizes)
    # Normalised, or put end to end; both where there are several.
    num_copies = (policy.normalizer is not None) + (len(sizes) > 1)
    column_row = num_copies * vectors + FLOAT * OF_ESTIMATING * num_signals
    if settings.trainer_type in KEEPS_OLD_DISTRIBUTION:
        column_row += 2 * FLOAT * (2 * policy.continuous_size + sum(policy.branch_sizes))

    batch_rows = min(hyperparameters.minibatch_size or num_rows, num_rows)
    if hyperparameters.minibatch_size is None:  # in pieces, one after the other
        batch_rows = min(policy.actor_body.rows_at_once, num_rows)
    images = obs_bytes - sum(of_log[f"obs_{i}"] for i in _vectors(policy))
    batch_row = vectors + images + action_bytes + FLOAT * (2 + 2 * num_signals)
    # While the next rows are put in order, the last minibatch still holds those before.
    reordered = 2 * max(min(REORDERED_BYTES, num_rows * batch_row), batch_rows * batch_row)
    kept = activation_bytes(policy, spec)
    return MemoryBudget(
        num_rows,
        step_log,
        int(num_rows * rollout_row),
        int(num_rows * column_row),
        int(reordered + OF_BACKWARD * kept * batch_rows),
        OF_WEIGHTS * FLOAT * sum(parameter.numel() for parameter in policy.parameters()),
        is_on_cpu,
    )


def _vectors(policy: ActorCritic) -> list[int]:
    """Gives the places of the sensors that are read as vectors."""
    return [i for i, sensor in enumerate(policy.sensors.all) if len(sensor.shape) == 1]


def activation_bytes(policy: ActorCritic, spec: BehaviorSpec) -> float:
    """Asks autograd what it keeps of one more row until `backward`."""
    few, more = (_kept_bytes(policy, spec, num_rows) for num_rows in (2, 6))
    return (more - few) / 4  # weights are kept, too, whatever the number of rows


def _kept_bytes(policy: ActorCritic, spec: BehaviorSpec, num_rows: int) -> int:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next(policy.parameters()).device

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(num_rows, *shape, dtype=dtype, device=device)

    obs = [
        zeros(*sensor.shape, dtype=torch.uint8 if sensor.dtype == "uint8" else torch.float32)
        for sensor in spec.observation_specs
    ]
    mask = zeros(sum(policy.branch_sizes), dtype=torch.bool) if policy.branch_sizes else None
    sequences = None
    if policy.memory_width:
        memory = torch.zeros(1, policy.memory_width, device=device)
        sequences = Sequences(torch.tensor([0, num_rows]), memory, num_rows)
    with torch.no_grad():
        inputs = policy.inputs(obs)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda same: same):
        evaluation = policy.evaluate(
            inputs,
            None if mask is None else ~mask,
            zeros(policy.continuous_size),
            zeros(len(policy.branch_sizes), dtype=torch.int64),
            sequences,
        )
        loss = evaluation.log_probs.exp().sum() + (evaluation.values**2).sum()
    del loss
    return sum(kept.values())


def shortage(budgets: Sequence[MemoryBudget], available: Available | None) -> str | None:
    """Says what to do if all behaviours together will need more memory than there is; else None.

    They learn one after the other: step logs add up, and the largest update counts.

    Args:
        budgets: of all behaviours so far, the newest last.
        available: of `available_memory`; None: nobody knows.
    """
    if available is None:
        return None
    needed = sum(budget.step_log for budget in budgets)
    needed += max(budget.of_host - budget.step_log for budget in budgets)
    if needed <= available.num_bytes:
        return None
    largest = max(budgets, key=lambda budget: budget.of_host)
    over_rows = largest.of_host - (largest.minibatch + largest.weights) * largest.is_on_cpu
    fits = largest.num_rows * (1 - (needed - available.num_bytes) / over_rows)
    lower = (
        f"lower buffer_size from {largest.num_rows:,} to {int(0.9 * fits):,} or less"
        if fits > 0
        else "lower batch_size and buffer_size"
    )
    return (
        f"The run will need {size(needed)} of memory when it learns, and "
        f"{size(available.num_bytes)} are free ({available.source}): the system may kill it then. "
        f"To avoid that, {lower}, or give it more memory."
    )
