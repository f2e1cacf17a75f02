"""Plays whole episodes with a finished policy, over the same bridge that it was trained on.

Letters: N agents that wait for an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from envs.batch import Actions, Decisions, Terminals
from envs.errors import SimulatorError
from envs.fleet import SimulatorLoss, SimulatorMessage
from envs.spec import BehaviorSpec, parse_behavior_id
from trainer.actor import to_simulator
from trainer.config.errors import UserError
from trainer.config.settings import GYM, TORCH, EnvironmentSettings, RunSettings
from trainer.description import describe
from trainer.onnx_policy import OnnxPolicy
from trainer.rollout.carried import CarriedMemory
from trainer.rollout.episodes import EpisodeTracker
from trainer.run_folder import RunFolder
from trainer.saved_policy import SavedPolicy, restore_policy
from trainer.simulators import open_simulators, plan_fleet

Episode = tuple[float, int]  # return, length in transitions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What to play."""

    env_path: str | None
    episodes: int
    deterministic: bool
    seed: int
    video: Path | None = None


class Player(Protocol):
    """Anything that chooses actions, such as a checkpoint or an ONNX file."""

    source: str

    def require_fits(self, name: str, spec: BehaviorSpec) -> None:
        """Raises UserError when the simulator's behaviour `name` is not what it was trained on."""
        ...

    def act(self, decisions: Decisions) -> Actions:
        """Answers N decisions."""
        ...

    def end(self, terminals: Terminals) -> None:
        """Takes note of agents whose episode is over."""
        ...


@dataclass
class CheckpointPlayer:
    """Acts with the policy of a checkpoint."""

    saved: SavedPolicy
    deterministic: bool
    seed: int
    source: str
    _generator: torch.Generator = field(init=False)
    _carried: CarriedMemory = field(init=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._carried = CarriedMemory(self.saved.policy.memory_width, torch.device("cpu"))

    def require_fits(self, name: str, spec: BehaviorSpec) -> None:
        """Compares observations and actions."""
        if _shapes(spec) != _shapes(self.saved.spec):
            raise UserError(
                f"{self.source} was trained on {describe(self.saved.spec)}; the simulator's "
                f"behaviour '{name}' has {describe(spec)}. Choose the simulator that it was "
                f"trained on (--env), or another run."
            )

    def act(self, decisions: Decisions) -> Actions:
        """Answers N decisions."""
        policy = self.saved.policy
        with torch.no_grad():
            inputs = policy.inputs([torch.from_numpy(obs) for obs in decisions.obs])
        mask = decisions.action_mask
        chosen = policy.act(
            inputs,
            None if mask is None else torch.from_numpy(mask),
            self._generator,
            self.deterministic,
            self._carried.of(decisions.lane) if policy.memory_width else None,
        )
        if chosen.memory is not None:
            self._carried.keep(decisions.lane, chosen.memory)
        return to_simulator(chosen)

    def end(self, terminals: Terminals) -> None:
        """Lets go of what agents remember whose episode is over."""
        self._carried.forget(terminals.lane)


@dataclass
class OnnxPlayer:
    """Acts with an exported policy, in onnxruntime, as Unity would."""

    policy: OnnxPolicy
    deterministic: bool
    source: str
    _carried: CarriedMemory = field(init=False)

    def __post_init__(self) -> None:
        self._carried = CarriedMemory(self.policy.memory_size, torch.device("cpu"))

    def require_fits(self, name: str, spec: BehaviorSpec) -> None:
        """Leaves it to `OnnxPolicy.act`, which knows its own inputs."""

    def act(self, decisions: Decisions) -> Actions:
        """Answers N decisions."""
        actions, memory = self.policy.remember(
            list(decisions.obs),
            decisions.action_mask,
            self.deterministic,
            self._carried.of(decisions.lane).numpy(),
        )
        self._carried.keep(decisions.lane, torch.from_numpy(memory))
        return actions

    def end(self, terminals: Terminals) -> None:
        """Lets go of what agents remember whose episode is over."""
        self._carried.forget(terminals.lane)


def policies_of_run(
    folder: RunFolder,
    names: Sequence[str],
    *,
    use_onnx: bool,
    from_step: int | None,
    plan: Evaluation,
) -> dict[str, Player]:
    """Loads the policies of a run, by behaviour name.

    Raises:
        UserError: there is no such checkpoint, or it was not exported.
    """
    players: dict[str, Player] = {}
    for name in names:
        state, saved = folder.store(name, keep=0).load(from_step)
        if not use_onnx:
            players[name] = CheckpointPlayer(
                restore_policy(state), plan.deterministic, plan.seed, str(saved.path)
            )
        elif saved.onnx_path is None:
            raise UserError(
                f"{saved.path} was saved without an ONNX file. Write one first: "
                f"ppo-train export --run-id {folder.path.name}"
            )
        else:
            players[name] = OnnxPlayer(
                OnnxPolicy(saved.onnx_path, plan.seed), plan.deterministic, str(saved.onnx_path)
            )
    return players


def evaluate(
    settings: RunSettings, logs_dir: Path, players: Mapping[str, Player], plan: Evaluation
) -> dict[str, list[Episode]]:
    """Plays until every behaviour has ended `plan.episodes` episodes; starts its own simulator.

    One simulator with one area: the episodes are the first ones, long and short alike, while with
    several at once the short ones would come first.

    Raises:
        SimulatorError: it could not be started, or was lost before the last episode.
        UserError: it shows something else than the run was trained on.
    """
    settings = settings.model_copy(update={"env_settings": _one_simulator(settings, plan)})
    trackers = {name: EpisodeTracker() for name in players}
    episodes: dict[str, list[Episode]] = {name: [] for name in players}
    seen: set[str] = set()
    fleet_plan = plan_fleet(settings, logs_dir, plan.seed, video=plan.video)
    with open_simulators(fleet_plan, on_device=False) as fleet:
        while any(len(played) < plan.episodes for played in episodes.values()):
            for arrival in fleet.recv():
                if isinstance(arrival, SimulatorLoss):
                    raise SimulatorError(str(arrival.error))
                _require_known(arrival.new_behaviors, players)
                seen |= {parse_behavior_id(announced).name for announced in arrival.new_behaviors}
                fleet.send(arrival.simulator, _answers(arrival, players, trackers))
            for name, tracker in trackers.items():
                returns, lengths = tracker.take_finished()
                ended = zip(returns.tolist(), lengths.tolist(), strict=True)
                episodes[name].extend(ended)
            _require_seen(seen, episodes, plan.episodes)
    return {name: played[: plan.episodes] for name, played in episodes.items()}


def _require_known(announced: Mapping[str, BehaviorSpec], players: Mapping[str, Player]) -> None:
    """Raises UserError when the simulator shows something else than the run was trained on."""
    found = {parse_behavior_id(behavior_id).name: spec for behavior_id, spec in announced.items()}
    if found and not found.keys() & players.keys():
        raise UserError(
            f"The simulator has the behaviours {', '.join(sorted(found))}; the run has "
            f"{', '.join(sorted(players))}. Choose the simulator that it was trained on (--env), "
            f"or another run."
        )
    for name in found.keys() & players.keys():
        players[name].require_fits(name, found[name])


def _require_seen(
    seen: Set[str], episodes: Mapping[str, Sequence[Episode]], num_episodes: int
) -> None:
    """Raises UserError for behaviours that nobody has met while others played to their end."""
    finished = [name for name, played in episodes.items() if len(played) >= num_episodes]
    missing = [name for name in episodes if name not in seen]
    if finished and missing:
        raise UserError(
            f"The simulator has no agent of {', '.join(missing)}, and {', '.join(finished)} has "
            f"finished its episodes ({num_episodes}); expected agents of all behaviours of the "
            f"run. Choose one that is there (--behavior {finished[0]}), or the simulator that the "
            f"run was trained on (--env)."
        )


def _one_simulator(settings: RunSettings, plan: Evaluation) -> EnvironmentSettings:
    """Gives the run's simulator, or another one without the arguments that were the run's."""
    env = settings.env_settings
    changes: dict[str, object] = {"env_path": plan.env_path, "num_areas": 1}
    is_gym = plan.env_path is not None and plan.env_path.startswith(GYM)
    is_on_device = plan.env_path is not None and plan.env_path.startswith(TORCH)
    changes["num_envs"] = 0 if is_on_device or (env.is_in_process and is_gym) else 1
    changes["max_bad_episodes"] = 0  # a return that leaves out some episodes would be no answer
    if plan.env_path != env.env_path:
        changes["env_kwargs"] = {}
        if is_gym:
            changes["env_args"] = None  # words for a Unity build
        else:
            changes["env_wrappers"] = ()  # another Gymnasium environment is looked at through them
    return env.model_copy(update=changes)


def _shapes(spec: BehaviorSpec) -> tuple[object, ...]:
    shapes = [(tuple(sensor.shape), sensor.observation_type) for sensor in spec.observation_specs]
    return shapes, spec.action_spec


def _answers(
    message: SimulatorMessage,
    players: Mapping[str, Player],
    trackers: Mapping[str, EpisodeTracker],
) -> dict[str, Actions]:
    """Answers one simulator; the bridge fills in zeros for behaviours that nobody plays."""
    for behavior_id, terminals in message.terminals.items():
        name = parse_behavior_id(behavior_id).name
        if name in trackers:
            trackers[name].end(terminals)
            players[name].end(terminals)
    answers = {}
    for behavior_id, decisions in message.decisions.items():
        name = parse_behavior_id(behavior_id).name
        if name in players:
            trackers[name].decide(decisions)
            answers[behavior_id] = players[name].act(decisions)
    return answers
