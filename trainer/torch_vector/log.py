"""The step log of agents that all step together, on the device that learns.

Letters: N agents, T env_steps of a rollout, B = N T, S segments, O numbers of an observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import BadDataError
from envs.spec import BehaviorSpec
from trainer.nn.actor_critic import Action
from trainer.rollout.rollout import Rollout
from trainer.rollout.steplog import StepLog


@dataclass(frozen=True, slots=True)
class TensorTurn:
    """What N agents see now and what their last decisions came to, in place of `Decisions`."""

    obs: Tensor  # (N, O)
    rewards: Tensor | None  # (N,); this and the following are None at the very beginning
    terminated: Tensor | None = None  # (N,)
    truncated: Tensor | None = None  # (N,)
    last_obs: Tensor | None = None  # (N, O)

    def __len__(self) -> int:
        return len(self.obs)


class TensorLog(StepLog):
    """T decisions of each of N agents, agent after agent, so that a rollout needs no sorting.

    Nothing is waited for but at a rollout's end. It shares StepLog's counters; what StepLog does
    with batches of single agents it does not have.
    """

    def __init__(self, spec: BehaviorSpec, buffer_size: int, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        self._buffer_size = buffer_size
        self._num_agents = 0
        self.num_rows = self.num_complete = self.num_kept = 0
        self.finished = None  # rollouts are cut after whole env_steps
        self.keeps_versions = False
        self._columns: dict[str, Tensor] = {}  # (N, T, ...)
        self._beyond: Tensor | None = None  # (N, O), of the decision behind the last row
        self._action: Action | None = None  # of the open decision
        self._t = 0  # env_steps that are complete
        self._is_emptied = False  # with the next decision: a rollout's views are valid until then

    @property
    def num_bytes(self) -> int:
        """Memory that the columns hold, once the number of agents is known."""
        return sum(column.nbytes for column in self._columns.values())

    @property
    def row_bytes(self) -> dict[str, int]:
        """Memory of one row, by column; the observation that may follow it is one, too."""
        obs, actions = math.prod(self._spec.observation_specs[0].shape), self._spec.action_spec
        size, branches = actions.continuous_size, actions.discrete_size
        return {
            "obs_0": 4 * obs,
            "last_obs": 4 * obs,
            "continuous": 4 * size,
            "discrete": 8 * branches,
            "log_probs": 4 * (size + branches),
            "others": 4 + 1 + 1 + 4 + 8,
        }

    def _build(self, num_agents: int) -> None:
        """Makes room for the first rollout."""
        self._num_agents = num_agents
        self._num_steps = math.ceil(self._buffer_size / num_agents)
        sensor, action_spec = self._spec.observation_specs[0], self._spec.action_spec
        size, branches = action_spec.continuous_size, action_spec.discrete_size
        widths: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "obs": (tuple(sensor.shape), torch.float32),
            "last_obs": (tuple(sensor.shape), torch.float32),
            "continuous": ((size,), torch.float32),
            "discrete": ((branches,), torch.int64),
            "log_probs": ((size + branches,), torch.float32),
            "rewards": ((), torch.float32),
            "terminated": ((), torch.bool),
            "truncated": ((), torch.bool),
            "returns": ((), torch.float32),  # of the episode so far
            "lengths": ((), torch.int64),
        }
        self._columns = {
            name: torch.zeros((num_agents, self._num_steps, *shape), dtype=dtype).to(self._device)
            for name, (shape, dtype) in widths.items()
        }
        self._return = torch.zeros(num_agents, device=self._device)  # of episodes so far
        self._length = torch.zeros(num_agents, dtype=torch.int64, device=self._device)

    def hear(self, turn: TensorTurn) -> None:
        """Closes the open decisions, if there are any, and notes what is seen now."""
        if not self._columns:
            self._build(len(turn))
        if self._is_emptied:
            self._is_emptied, self._t = False, 0
            if self._beyond is not None:
                self._columns["obs"][:, 0] = self._beyond
        if turn.rewards is not None and self._action is not None:
            self._close_turn(turn)
        if self._t < self._num_steps:
            self._columns["obs"][:, self._t] = turn.obs
        else:
            self._beyond = turn.obs.clone()

    def _close_turn(self, turn: TensorTurn) -> None:
        assert turn.rewards is not None
        assert turn.terminated is not None
        assert turn.truncated is not None
        assert turn.last_obs is not None
        assert self._action is not None
        self._return = self._return + turn.rewards
        self._length = self._length + 1
        written = {
            "continuous": self._action.continuous,
            "discrete": self._action.discrete,
            "log_probs": self._action.log_probs,
            "rewards": turn.rewards,
            "terminated": turn.terminated,
            "truncated": turn.truncated & ~turn.terminated,
            "last_obs": turn.last_obs,
            "returns": self._return,
            "lengths": self._length,
        }
        for name, value in written.items():
            self._columns[name][:, self._t] = value
        over = turn.terminated | turn.truncated
        self._return = self._return.masked_fill(over, 0.0)
        self._length = self._length.masked_fill(over, 0)
        self._t += 1
        self.num_complete = self.num_rows = self._t * self._num_agents

    def record_action(self, action: Action) -> None:
        """Notes what was chosen for the decisions that `hear` has opened."""
        self._action = action

    def take(self, time_horizon: int) -> tuple[Rollout, Tensor]:
        """Gives everything complete as segments of at most `time_horizon` decisions.

        Waits for the device. The log is empty afterwards.

        Returns:
            The rollout, its rewards (B, 0), and the simulator's reward (B,). Views of the log: they
            are valid until the next decision.

        Raises:
            BadDataError: a number is NaN or infinite.
        """
        assert self._t == self._num_steps, "a rollout is taken when it is full"
        assert self._beyond is not None
        flat = {name: column.flatten(0, 1) for name, column in self._columns.items()}  # (B, ...)
        self._require_finite()
        columns = self._columns
        ends = columns["terminated"] | columns["truncated"]  # (N, T)
        cut = torch.arange(1, self._num_steps + 1, device=self._device) % time_horizon == 0
        cut[-1] = True
        last_rows = (ends | cut).flatten().nonzero().squeeze(1)  # (S,)
        starts = torch.cat([last_rows.new_zeros(1), last_rows + 1])
        # What follows a row: the agent's next observation, unless its episode is over.
        following = flat["obs"][(last_rows + 1).clamp_max(len(flat["obs"]) - 1)]
        steps = last_rows % self._num_steps
        beyond = self._beyond[last_rows // self._num_steps]
        following = torch.where((steps == self._num_steps - 1).unsqueeze(1), beyond, following)
        is_truncated = flat["truncated"][last_rows].unsqueeze(1)
        rewards = flat["rewards"]
        self.keep_open_rows()
        rollout = Rollout(
            obs=(flat["obs"],),
            action_mask=self._everything_allowed(len(rewards)),
            continuous=flat["continuous"],
            discrete=flat["discrete"],
            log_probs=flat["log_probs"],
            rewards=rewards.new_empty((len(rewards), 0)),
            segment_starts=starts,
            bootstrap_obs=(torch.where(is_truncated, flat["last_obs"][last_rows], following),),
            terminated=flat["terminated"][last_rows],
        )
        return rollout, rewards

    def _everything_allowed(self, num_rows: int) -> Tensor | None:
        branches = self._spec.action_spec.discrete_branches
        if not branches:
            return None
        return torch.ones((num_rows, sum(branches)), dtype=torch.bool, device=self._device)

    def _require_finite(self) -> None:
        """Looks at all numbers of a rollout at once; doing so in every env_step would wait."""
        for name in ("obs", "rewards", "last_obs"):
            if bool(torch.isfinite(self._columns[name]).all()):
                continue
            place = (~torch.isfinite(self._columns[name])).nonzero()[0].tolist()
            raise BadDataError(
                f"agent {place[0]} gave {self._columns[name][tuple(place)].item()} in {name}"
                f"{place[2:]}, {self._num_steps - place[1]} env_steps ago; a finite number is "
                f"expected. Look for a division by zero or a physics blow-up in the environment."
            )

    @property
    def is_full(self) -> bool:
        """Whether every row is of this rollout."""
        return self._t == self._num_steps

    def finished_episodes(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Gives returns and lengths of the episodes that ended in this rollout; waits."""
        over = self._columns["terminated"] | self._columns["truncated"]
        # In the order in which they ended: (T, N)
        returns = self._columns["returns"].t()[over.t()].double().cpu().numpy()
        lengths = self._columns["lengths"].t()[over.t()].cpu().numpy()
        return returns, lengths

    def keep_open_rows(self, complete: NDArray[np.int64] | None = None) -> None:
        """Empties the log but for the open decision of each agent."""
        if self._columns and not self._is_emptied and self._t < self._num_steps:
            self._beyond = self._columns["obs"][:, self._t].clone()
        self._is_emptied = True
        self.num_complete = self.num_rows = 0

    def abandon(self, lanes: NDArray[np.int64]) -> None:
        """Forgets open decisions and unfinished episodes: all agents begin anew."""
        self._action = None
        if self._columns:
            self._return.zero_()
            self._length.zero_()
