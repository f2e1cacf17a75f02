"""Runs in the referee's venv: mlagents-envs' own UnityEnvironment drives one of our simulators.

Writes all that it saw and did to an .npz file and prints a summary as JSON.
"""

# The old client's types are unknown to the tools of the main venv.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: ignore-errors
import argparse
import json
import socket

import numpy as np
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--executable", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--num-areas", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--reset-at", type=int, required=True)
    parser.add_argument("--parameter", action="append", default=[])
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    stats, parameters = StatsSideChannel(), EnvironmentParametersChannel()
    for assignment in options.parameter:
        key, value = assignment.split("=")
        parameters.set_float_parameter(key, float(value))
    environment = UnityEnvironment(
        file_name=options.executable,
        base_port=free_port(),
        seed=options.seed,
        num_areas=options.num_areas,
        no_graphics=True,
        timeout_wait=60,
        side_channels=[stats, parameters],
    )
    try:
        print(json.dumps(drive(environment, stats, options)))
    finally:
        environment.close()


def drive(environment, stats, options):
    environment.reset()
    (name,) = environment.behavior_specs
    spec = environment.behavior_specs[name]
    generator = np.random.default_rng(options.seed)
    columns = {}

    def record(key, values):
        columns.setdefault(key, []).append(values)

    for step in range(options.steps):
        decisions, terminals = environment.get_steps(name)
        record("decision_id", decisions.agent_id)
        record("decision_reward", decisions.reward)
        record("terminal_step", np.full(len(terminals), step))
        record("terminal_id", terminals.agent_id)
        record("terminal_reward", terminals.reward)
        record("terminal_interrupted", terminals.interrupted)
        for index, (live, last) in enumerate(zip(decisions.obs, terminals.obs)):  # noqa: B905
            record(f"decision_obs{index}", live)
            record(f"terminal_obs{index}", last)
        if step == options.reset_at:
            environment.reset()
            nothing = spec.action_spec.empty_action(len(decisions))
            record("continuous", nothing.continuous)
            record("discrete", nothing.discrete)
            continue
        continuous = generator.uniform(
            -1, 1, (len(decisions), spec.action_spec.continuous_size)
        ).astype(np.float32)
        discrete = np.stack(
            [
                generator.integers(size, size=len(decisions))
                for size in spec.action_spec.discrete_branches
            ]
            or [np.zeros(len(decisions))],
            axis=1,
        )[:, : spec.action_spec.discrete_size].astype(np.int32)
        record("continuous", continuous)
        record("discrete", discrete)
        environment.set_actions(name, ActionTuple(continuous, discrete))
        environment.step()
    np.savez(
        options.output,
        **{
            key: np.concatenate(values) if key.startswith("terminal") else np.stack(values)
            for key, values in columns.items()
        },
    )
    return {
        "behavior": name,
        "continuous": spec.action_spec.continuous_size,
        "branches": list(spec.action_spec.discrete_branches),
        "sensors": [observation.name for observation in spec.observation_specs],
        "shapes": [list(observation.shape) for observation in spec.observation_specs],
        "stats": {
            key: [value for value, _ in values]
            for key, values in stats.get_and_reset_stats().items()
        },
    }


if __name__ == "__main__":
    main()
