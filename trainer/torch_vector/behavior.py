"""A behaviour whose agents live on the device that learns.

Letters: N agents, C continuous action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.batch import ACTION_LIMIT, Actions, Decisions
from trainer.actor import Actor
from trainer.behavior import Behavior
from trainer.behavior_update import BehaviorUpdate
from trainer.config.errors import UserError
from trainer.config.settings import RunSettings
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.rollout import Rollout
from trainer.torch_vector.log import TensorLog, TensorTurn


def behavior_type(settings: RunSettings) -> type[Behavior]:
    """Gives the class that a run's behaviours are of."""
    return DeviceBehavior if settings.env_settings.is_on_device else Behavior


class TensorActor(Actor):
    """Chooses with the policy itself, on its device; nothing comes to the host."""

    def __init__(self, policy: ActorCritic, seed: int, deterministic: bool) -> None:
        self._policy = self._learning = policy
        self._deterministic = deterministic
        self._device = next(policy.parameters()).device
        self._carried = self._compiled = None
        self._generator = torch.Generator(device=self._device).manual_seed(seed)

    @torch.no_grad()
    def act_on(self, log: TensorLog, turn: TensorTurn) -> Tensor:
        """Decides for N agents; gives what the environment receives, (N, C) or (N, K)."""
        inputs = self._policy.inputs([turn.obs])
        action = self._policy.act(inputs, None, self._generator, self._deterministic)
        log.record_action(action)
        if not action.continuous.shape[1]:
            return action.discrete
        return action.continuous.clamp(-ACTION_LIMIT, ACTION_LIMIT) / ACTION_LIMIT


class DeviceBehavior(Behavior):
    """Collects and learns on the device; rollouts are whole env_steps of all agents."""

    actor: TensorActor
    log: TensorLog

    def _new_collector(self, seed: int) -> tuple[Actor, TensorLog]:
        settings = self.settings
        has_memory = settings.network_settings.memory is not None
        wants_ends = settings.hyperparameters.needs_whole_episodes
        for what, is_asked in (
            ("network_settings.memory", has_memory),
            (f"trainer_type {settings.trainer_type}", wants_ends),
        ):
            if is_asked:
                raise UserError(
                    f"behaviors.{self.name}: {what} cannot be had with env_path torch:..., whose "
                    f"rollouts are cut after whole env_steps. Leave it out, or take another "
                    f"trainer_type."
                )
        actor = TensorActor(self.policy, seed, settings.network_settings.deterministic)
        return actor, TensorLog(self.spec, settings.hyperparameters.buffer_size, self.device)

    def decide(self, batches: Sequence[Decisions]) -> list[Actions]:
        """Answers all agents, which come in one batch."""
        (turn,) = cast("Sequence[TensorTurn]", batches)  # see TorchFleet.recv
        complete = self.log.num_complete
        self.log.hear(turn)
        answer = self.actor.act_on(self.log, turn)
        self.step += self.log.num_complete - complete
        return [cast("Actions", answer)]

    def begin_update(self) -> BehaviorUpdate | None:
        """Also without learning tells the statistics of the episodes in a rollout."""
        update = super().begin_update()
        if update is None and self.log.is_full:
            self.episodes.add_finished(*self.log.finished_episodes())
        return update

    def take_rollout(self) -> tuple[Rollout, Tensor]:
        """Gives the rollout, and tells the statistics of the episodes in it."""
        taken = self.log.take(self.settings.time_horizon)
        self.episodes.add_finished(*self.log.finished_episodes())
        return taken

    def abandon(self, lanes: NDArray[np.int64]) -> None:
        """Forgets all agents' unfinished episodes: they begin anew together."""
        self.log.abandon(lanes)
