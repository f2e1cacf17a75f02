"""Where agents act: in the trainer, or at simulators that can run the policy themselves.

In the trainer every decision costs a round trip. A simulator that acts gets the policy after each
update and an assignment of some env_steps, and sends them back all at once. It stays on-policy: no
more is assigned than the rollout still lacks, and nothing more before the update, which waits for
all that was assigned: one simulator that hangs holds up the others until `timeout_wait` is over.

Where updates run beside collection (`threaded`), they wait for nobody, and up to one more rollout
is assigned meanwhile, with the policy of the last update that is over.

Letters: K agents of one simulator.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from envs.batch import Int64
from envs.fleet import Assignment, SimulatorMessage
from envs.simulators import Simulators
from envs.spec import parse_behavior_id
from trainer.behavior import Behavior
from trainer.config.errors import UserError
from trainer.config.settings import ActAt

# With `auto`, each place is tried for so long, and so many steps.
TRIAL_S = 1.0
TRIAL_STEPS = 500
FASTER = 1.05  # by how much simulators have to be, to act for themselves

REPORT_S = 0.2  # how long a simulator may play before it tells
SHARES = 8  # parts of a rollout, and of a summary's steps, that come at least
PATIENCE_STEPS = 16  # env_steps at once while episodes are only awaited to end


class CannotActError(UserError):
    """The settings want simulators to act, and they cannot."""


@dataclass(slots=True)
class _Player:
    """A simulator that acts for itself, and the behaviour that it holds."""

    behavior_id: str
    lanes: Int64  # (K,) of the agents whose choices are not known yet
    num_updates: int = -1  # of the policy that it has
    num_steps: int = 0  # of its assignment; 0 = it waits for one
    most_steps: int = 1  # that take it no longer than REPORT_S
    assigned_at_s: float = 0.0

    @property
    def name(self) -> str:
        """Gives the behaviour's name, without team."""
        return parse_behavior_id(self.behavior_id).name

    @property
    def num_assigned(self) -> int:
        """How many decisions are on their way."""
        return self.num_steps * len(self.lanes)


class Placement:
    """Decides where agents act, and assigns; knows the simulators that do."""

    def __init__(self, act_at: ActAt, fleet: Simulators, behaviors: Mapping[str, Behavior]) -> None:
        """Begins in the trainer, except with `simulator`.

        Args:
            act_at: of the settings; `auto` tries both places and takes the faster one.
            fleet: of all simulators.
            behaviors: by name, as they appear.
        """
        self.at_simulator = act_at == "simulator"
        self._is_demanded = act_at == "simulator"
        self.is_open = act_at == "auto"  # both places are still being tried
        self._fleet = fleet
        self._behaviors = behaviors
        self._players: dict[int, _Player] = {}
        self._trial: tuple[int, float] | None = None  # step and seconds of collecting at its start
        self.heard: Counter[int] = Counter()  # messages with agents, by simulator
        self._rate_in_trainer: float | None = None  # steps per second of collecting

    # ---- what simulators say ----------------------------------------------------------------

    def hear(self, message: SimulatorMessage) -> None:
        """Writes what a simulator chose for its last decisions into the step log."""
        for choices in message.choices.values():
            player = self._players[message.simulator]
            self._behaviors[player.name].log.record_choices(
                player.lanes, choices, player.num_updates
            )

    def open_rows(self, message: SimulatorMessage) -> None:
        """Opens the rows of decisions that the simulator makes, or has made, by itself."""
        player = self._players[message.simulator]
        decisions = message.decisions.get(player.behavior_id)
        if decisions is None:  # all of its agents are ignored
            player.lanes = player.lanes[:0]
            return
        self._behaviors[player.name].open(decisions)
        player.lanes = decisions.lane

    def lets_act(self, arrival: SimulatorMessage) -> bool:
        """Takes a message that waits for an answer, if its simulator is to act for itself.

        Returns:
            False: the trainer has to act.

        Raises:
            CannotActError: the settings want it to, and it cannot.
        """
        self.heard[arrival.simulator] += 1
        if not self.at_simulator or not arrival.decisions:
            self.forget(arrival.simulator)
            return False
        if (reason := self._why_not(arrival)) is not None:
            if self._is_demanded:
                raise CannotActError(
                    f"env_settings.act_at is simulator, but simulator {arrival.simulator} cannot "
                    f"act: {reason}. Set act_at to auto or trainer."
                )
            self.at_simulator = self.is_open = False
            self.forget(arrival.simulator)
            return False
        ((behavior_id, decisions),) = arrival.decisions.items()
        player = self._players.get(arrival.simulator)
        if player is None:
            player = self._players[arrival.simulator] = _Player(behavior_id, decisions.lane)
        elif player.num_steps:
            taken_s = max(time.perf_counter() - player.assigned_at_s, 1e-6)
            at_once = int(REPORT_S * player.num_steps / taken_s)
            player.most_steps = max(1, min(at_once, 2 * player.num_steps))
        player.num_steps = 0
        self.open_rows(arrival)
        return True

    def _why_not(self, arrival: SimulatorMessage) -> str | None:
        """Says why a simulator cannot act for itself; None: it can."""
        if not self._fleet.can_act(arrival.simulator):
            return "only ppo-train's own simulator agents (env_path gym:...), of one behavior, can"
        if len(arrival.decisions) > 1:
            return f"it holds {len(arrival.decisions)} behaviors"
        (behavior_id,) = arrival.decisions
        if self._behaviors[parse_behavior_id(behavior_id).name].actor.graph is None:
            return "its policy has memory, or lies on another device than the CPU"
        return None

    def forget(self, simulator: int) -> None:
        """Takes note that a simulator is gone, or acts no more; what comes after has no policy."""
        self._players.pop(simulator, None)

    def lose(self, simulator: int) -> None:
        """Takes note that a simulator is lost, and may come back."""
        self.forget(simulator)
        self.heard.pop(simulator, None)
        self.begin_trial_anew()

    def rests(self, simulator: int) -> bool:
        """Whether a simulator that acts for itself waits for something to do."""
        player = self._players.get(simulator)
        return player is not None and not player.num_steps

    def begin_trial_anew(self) -> None:
        """Measures anew in the place that is being tried: something has held up the simulators."""
        self._trial = None

    # ---- what simulators are to do ----------------------------------------------------------

    def awaits(self, behavior: Behavior) -> bool:
        """Whether simulators still act with the behaviour's policy, so that it must not change."""
        return any(p.num_steps and p.name == behavior.name for p in self._players.values())

    def assign(self) -> None:
        """Gives every simulator that waits something to do, unless the update has to come first."""
        # By behaviour: decisions on their way before this round, and in all; and agents.
        before, on_their_way, agents = Counter[str](), Counter[str](), Counter[str]()
        for player in self._players.values():
            before[player.name] += player.num_steps
            on_their_way[player.name] += player.num_assigned
            agents[player.name] += len(player.lanes)
        for simulator, player in self._players.items():
            if player.num_steps:
                continue
            name = player.name
            behavior = self._behaviors[name]
            num_steps = self._num_steps(
                player,
                behavior,
                on_their_way[name],
                max(1, agents[name]),
                is_anybody_busy=before[name] > 0,
            )
            if not num_steps:
                continue
            num_steps = min(num_steps, self._fleet.most_steps(simulator))
            policies = {}
            if player.num_updates != behavior.num_updates:
                graph = behavior.actor.graph
                assert graph is not None, "`lets_act` has asked"
                policies[player.behavior_id] = graph
            player.num_updates = behavior.num_updates
            player.num_steps, player.assigned_at_s = num_steps, time.perf_counter()
            on_their_way[name] += player.num_assigned
            is_deterministic = behavior.settings.network_settings.deterministic
            self._fleet.assign(simulator, Assignment(num_steps, policies, is_deterministic))

    def _num_steps(
        self,
        player: _Player,
        behavior: Behavior,
        num_assigned: int,
        num_agents: int,
        *,
        is_anybody_busy: bool,
    ) -> int:
        """Gives how many env_steps a simulator should make now; 0: the update comes first.

        Args:
            player: the simulator, which waits.
            behavior: that it holds.
            num_assigned: decisions of the behaviour that are on their way.
            num_agents: of the behaviour, at all simulators; at least 1.
            is_anybody_busy: whether results were awaited before this round of assignments.
        """
        left = behavior.settings.max_steps - behavior.step - num_assigned
        lacking = min(behavior.num_lacking + behavior.num_ahead - num_assigned, left)
        if lacking <= 0:
            if left <= 0 or is_anybody_busy or behavior.num_lacking > 0:
                return 0
            if behavior.is_ready_to_learn:
                return 0
            # Whole episodes may be longer than the rollout: all go on, and tell together.
            return min(PATIENCE_STEPS, player.most_steps, math.ceil(left / num_agents))
        settings = behavior.settings
        share = min(settings.hyperparameters.buffer_size, settings.summary_freq) // SHARES
        most = max(1, min(share // num_agents, player.most_steps))
        return min(most, math.ceil(lacking / num_agents))

    # ---- which place is faster --------------------------------------------------------------

    def observe(self, step: int, collecting_s: float) -> str | None:
        """Compares both places while a run begins; says once what was chosen.

        Args:
            step: of all behaviours together.
            collecting_s: spent so far on anything but learning and saving.
        """
        if not self.is_open or not step or len(self.heard) < self._fleet.num_alive:
            return None
        if self._trial is None:
            self._trial = step, collecting_s
        steps, seconds = step - self._trial[0], collecting_s - self._trial[1]
        if steps < TRIAL_STEPS or seconds < TRIAL_S:
            return None
        rate, self._trial = steps / seconds, None
        if self._rate_in_trainer is None:
            self._rate_in_trainer, self.at_simulator = rate, True
            return None
        self.is_open = False
        self.at_simulator = rate > FASTER * self._rate_in_trainer
        where = "at the simulators" if self.at_simulator else "in the trainer"
        return (
            f"Agents act {where}: collecting made {rate:,.0f} steps/s with the policy at the "
            f"simulators, {self._rate_in_trainer:,.0f} in the trainer."
        )
