"""What a simulator has in it: connects to one, looks at its behaviours, and ends it again.

Needs no torch. The agents get zero actions for a few steps.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from envs.errors import SimulatorError
from envs.fleet import FleetPlan, SimulatorLoss, SimulatorMessage
from envs.spec import (
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    parse_behavior_id,
)
from trainer.config.problems import nearest, one_of
from trainer.config.sensor_limits import objection_to_goal, objection_to_image
from trainer.config.settings import ListenSettings, NetworkSettings, RunSettings
from trainer.simulators import open_simulators, plan_fleet

# Behaviours appear when their first agent asks for a decision, which may be some steps late.
STEPS_WITHOUT_NEWS = 30


@dataclass
class SeenBehavior:
    """One behaviour id of a scene."""

    spec: BehaviorSpec
    agents: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)  # without 0, which is none


@dataclass
class Scene:
    """All that a simulator has shown."""

    behaviors: dict[str, SeenBehavior] = field(default_factory=dict)  # by behaviour id
    num_steps: int = 0

    @property
    def names(self) -> list[str]:
        """The behaviours without their teams."""
        return sorted({parse_behavior_id(behavior_id).name for behavior_id in self.behaviors})

    def take(self, message: SimulatorMessage) -> bool:
        """Looks at one message; tells whether it shows a new behaviour."""
        self.num_steps += 1
        for behavior_id, spec in message.new_behaviors.items():
            self.behaviors[behavior_id] = SeenBehavior(spec)
        for behavior_id, decisions in message.decisions.items():
            seen = self.behaviors[behavior_id]
            if len(message.decisions[behavior_id].lane) > len(seen.agents):
                seen.agents = set(decisions.agent_id.tolist())
            seen.groups |= set(decisions.group_id.tolist()) - {0}
        return bool(message.new_behaviors)


def look_at_scene(settings: RunSettings) -> Scene:
    """Starts and connects one simulator, looks, and ends it; waits for it as long as a run would.

    Raises:
        SimulatorError: it cannot be started or reached, or says what cannot be understood.
    """
    logs = Path(tempfile.mkdtemp(prefix="ppo-train-check-"))
    seed = max(0, settings.env_settings.seed)
    # An Editor is this machine's, wherever the run itself will listen.
    here = settings.model_copy(update={"listen_settings": ListenSettings()})
    plan = replace(plan_fleet(here, logs, seed), num_simulators=1, max_bad_episodes=0)
    scene = watch(plan)  # if this fails, its message names a log in the folder
    shutil.rmtree(logs, ignore_errors=True)
    return scene


def watch(plan: FleetPlan) -> Scene:
    """Looks at a fleet of one simulator until nothing new appears.

    Raises:
        SimulatorError: it was lost.
    """
    scene, quiet = Scene(), 0
    with open_simulators(plan, on_device=False) as fleet:
        while quiet < STEPS_WITHOUT_NEWS:
            for item in fleet.recv():
                if isinstance(item, SimulatorLoss):
                    raise item.error
                quiet = 0 if scene.take(item) else quiet + 1
                fleet.send(item.simulator, {})
    if not scene.behaviors:
        raise SimulatorError(
            f"The simulator answered {scene.num_steps} times, but no agent asked for a decision. "
            f"Does the scene hold an Agent with a Decision Requester, not set to Inference Only?"
        )
    return scene


def description(scene: Scene) -> Iterator[str]:
    """Yields lines that say what a scene has."""
    for behavior_id, seen in sorted(scene.behaviors.items()):
        actions = seen.spec.action_spec
        agents = f"{len(seen.agents)} agent{'s' * (len(seen.agents) != 1)}"
        groups = f", in {len(seen.groups)} groups" if seen.groups else ""
        yield f"{behavior_id}: {agents} of team {parse_behavior_id(behavior_id).team}{groups}"
        for number, sensor in enumerate(seen.spec.observation_specs):
            name = sensor.name or f"sensor {number}"
            yield f"  observation {name}: {kind_of(sensor)}, shape {tuple(sensor.shape)}"
        if actions.continuous_size:
            yield f"  actions: {actions.continuous_size} continuous"
        if actions.discrete_size:
            yield f"  actions: discrete, branches of {list(actions.discrete_branches)}"


def kind_of(sensor: ObservationSpec) -> str:
    """Says what kind of observation a sensor gives."""
    is_variable = DimensionProperty.VARIABLE_SIZE in sensor.dimension_property
    if is_variable:
        kind = "variable-length"
    else:
        kind = {1: "vector", 3: "visual"}.get(len(sensor.shape), f"rank {len(sensor.shape)}")
    is_goal = sensor.observation_type is ObservationType.GOAL_SIGNAL
    return f"{kind}, goal signal" if is_goal else kind


def unreadable(behavior_id: str, scene: Scene, network: NetworkSettings) -> Iterator[str]:
    """Yields what keeps a behaviour's network from being built."""
    spec = scene.behaviors[behavior_id].spec
    for number, sensor in enumerate(spec.observation_specs):
        name, kind, objection = sensor.name or f"sensor {number}", kind_of(sensor), None
        if kind.startswith("visual"):
            objection = objection_to_image(name, sensor.shape, network)
        elif kind == "variable-length, goal signal":
            objection = objection_to_goal(name, sensor.shape, network)
        elif kind.startswith("rank"):
            objection = (
                f"sensor '{name}' has shape {tuple(sensor.shape)}, and networks read vectors, "
                f"images and variable-length observations. Remove the sensor, or let it observe "
                f"one of these."
            )
        if objection is not None:
            yield f"{behavior_id!r}: {objection}"
    if not spec.action_spec.continuous_size + spec.action_spec.discrete_size:
        yield (
            f"{behavior_id!r} has no actions. Give its agents at least one continuous action or "
            f"one discrete branch (Behavior Parameters > Actions)."
        )


def differences(settings: RunSettings, scene: Scene) -> tuple[list[str], list[str]]:
    """Compares the behaviours of file and scene, and sensors with the networks asked for.

    Returns:
        What would stop a run, and what would not.
    """
    listed = one_of(repr(name) for name in settings.behaviors) if settings.behaviors else "none"
    problems: list[str] = []
    for behavior_id in sorted(scene.behaviors):
        name = parse_behavior_id(behavior_id).name
        own = settings.behaviors.get(name, settings.default_settings)
        if own is not None:
            problems += unreadable(behavior_id, scene, own.network_settings)
            continue
        close = nearest(name, settings.behaviors)
        hint = f" Is {close!r} the same?" if close else ""
        problems.append(
            f"the scene has {behavior_id!r}; the file has {listed}.{hint} Rename it under "
            f"`behaviors:` or in Unity (Behavior Name), or add default_settings."
        )
    notes = [
        f"the file has {name!r}, which the scene did not show in {scene.num_steps} steps; it has "
        f"{one_of(repr(known) for known in scene.names)}."
        for name in settings.behaviors
        if name not in scene.names
    ]
    return problems, notes
