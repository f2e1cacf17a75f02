"""A behaviour's sensors and actions in words."""

from __future__ import annotations

from envs.spec import BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType


def describe(spec: BehaviorSpec) -> str:
    """Says what a behaviour observes and how it acts, in one line."""
    sensors = ", ".join(_describe_sensor(sensor) for sensor in spec.observation_specs)
    actions = spec.action_spec
    branches = f", discrete branches {list(actions.discrete_branches)}"
    return (
        f"observations {sensors}; actions {actions.continuous_size} continuous"
        f"{branches if actions.discrete_size else ''}"
    )


def _describe_sensor(sensor: ObservationSpec) -> str:
    words = f"{sensor.name or 'sensor'} {tuple(sensor.shape)}"
    if DimensionProperty.VARIABLE_SIZE in sensor.dimension_property[0]:
        words += " of variable length"
    if sensor.dtype != "float32":
        words += f" {sensor.dtype}"
    return f"goal {words}" if sensor.observation_type == ObservationType.GOAL_SIGNAL else words
