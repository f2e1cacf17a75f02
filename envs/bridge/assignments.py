"""Acting at the simulator, on the wire: what the trainer assigns, and what comes back.

Instead of actions the trainer may send a simulator that can act an assignment: a policy, and how
many env_steps to make with it. The simulator's next message then holds all of these steps, each
with what was chosen before it. The fields are ours; ML-Agents skips them (`proto/columns.proto`).

Letters: N agents that waited, C continuous action size, K discrete branches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from envs.batch import Choices
from envs.bridge import limits
from envs.bridge.limits import shown
from envs.bridge.proto import columns_pb2
from envs.bridge.protocol import STATUS_OK
from envs.errors import BadDataError
from envs.graph_policy import PolicyGraph
from envs.spec import ActionSpec


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a simulator is to do by itself before its next message."""

    num_steps: int  # env_steps, at least 1
    policies: Mapping[str, PolicyGraph]  # by behaviour id; those that are missing stay
    deterministic: bool = False  # the likeliest action instead of a draw


def encode_assignment(assignment: Assignment, side_channel: bytes) -> bytes:
    """Gives the message that answers a step with an assignment."""
    order = columns_pb2.Assignment(
        num_steps=assignment.num_steps,
        deterministic=assignment.deterministic,
        policies={
            behavior_id: columns_pb2.Policy(
                model=graph.model, log_std=graph.log_std.astype("<f4").tobytes()
            )
            for behavior_id, graph in assignment.policies.items()
        },
    )
    rl_input = columns_pb2.RLInput(side_channel=side_channel)
    return columns_pb2.Message(
        header={"status": STATUS_OK},
        unity_input=columns_pb2.Input(rl_input=rl_input, assignment=order),
    ).SerializeToString()


def decode_assignment(order: columns_pb2.Assignment) -> Assignment:
    """Reads an assignment, at the simulator.

    Raises:
        BadDataError: there is nothing to do in it.
    """
    if order.num_steps < 1:
        raise BadDataError(f"The trainer assigned {order.num_steps} steps; expected at least 1.")
    policies = {
        behavior_id: PolicyGraph(policy.model, np.frombuffer(policy.log_std, "<f4"))
        for behavior_id, policy in order.policies.items()
    }
    return Assignment(order.num_steps, policies, order.deterministic)


def require_as_assigned(
    output: columns_pb2.Output, num_steps: int, behavior_ids: frozenset[str]
) -> None:
    """Raises BadDataError unless a message brings what was assigned.

    Args:
        output: of the message.
        num_steps: acted env_steps that are due; 0 = none.
        behavior_ids: whose agents waited when they were assigned; there may be no others.
    """
    has_acted = output.played or output.choices
    found = len(output.played) + 1 if has_acted else 0
    if found != num_steps:
        raise BadDataError(
            f"{found} env_steps with actions of its own found, {num_steps} expected. A simulator "
            "acts for itself when it has been assigned to, and then for all of these env_steps."
        )
    if not num_steps:
        return
    words = shown(", ".join(sorted(behavior_ids)))
    env_steps: list[columns_pb2.Played | columns_pb2.Output] = [*output.played, output]
    for env_step in env_steps:
        told = limits.behavior_ids(env_step.rl_output.agent_infos)
        strange = {*told, *limits.behavior_ids(env_step.choices)} - behavior_ids
        if strange:
            raise BadDataError(
                f"agents or choices of behaviour {shown(min(strange))} found in a message of "
                f"assigned env_steps, those of {words} expected, whose agents waited. A simulator "
                "that acts holds one behaviour."
            )
    if output.HasField("rl_initialization_output"):
        raise BadDataError(
            "brain parameters found in a message of assigned env_steps, none expected: they come "
            "with a behaviour's first agents, which only an answered message may bring."
        )


def encode_choices(choices: Choices) -> columns_pb2.Choices:
    """Writes what was chosen for N agents."""
    return columns_pb2.Choices(
        continuous=choices.continuous.astype("<f4").tobytes(),
        discrete=choices.discrete.astype("<i4").tobytes(),
        log_probs=choices.log_probs.astype("<f4").tobytes(),
    )


def decode_choices(
    behavior_id: str, found: columns_pb2.Choices | None, spec: ActionSpec, num_rows: int
) -> Choices:
    """Reads what a simulator chose for the N = `num_rows` agents that waited, at the trainer.

    Raises:
        BadDataError: of another size than the behaviour's actions.
    """
    found = columns_pb2.Choices() if found is None else found
    sizes = spec.continuous_size, spec.discrete_size, spec.continuous_size + spec.discrete_size
    columns = found.continuous, found.discrete, found.log_probs
    if any(len(c) != 4 * num_rows * size for c, size in zip(columns, sizes, strict=True)):
        raise BadDataError(
            f"behaviour {behavior_id!r}: choices of {[len(column) // 4 for column in columns]} "
            f"numbers (continuous, discrete, log-probabilities) found, "
            f"{[num_rows * size for size in sizes]} expected for {num_rows} agents. A simulator "
            "that acts must choose once for every agent that waits."
        )
    continuous = np.frombuffer(found.continuous, "<f4").reshape(num_rows, sizes[0])
    discrete = np.frombuffer(found.discrete, "<i4").reshape(num_rows, sizes[1])
    log_probs = np.frombuffer(found.log_probs, "<f4").reshape(num_rows, sizes[2])
    return Choices(continuous, discrete.astype(np.int64), log_probs)


def require_sound_choices(behavior_id: str, choices: Choices, spec: ActionSpec) -> None:
    """Raises BadDataError for choices that are not finite, or outside their branch."""
    if not (np.isfinite(choices.continuous).all() and np.isfinite(choices.log_probs).all()):
        raise BadDataError(
            f"behaviour {behavior_id!r}: a simulator that acts chose an action, or its "
            "log-probability, that is NaN or infinite; finite numbers are expected."
        )
    branches = np.array(spec.discrete_branches, np.int64)
    if (choices.discrete < 0).any() or (choices.discrete >= branches).any():
        raise BadDataError(
            f"behaviour {behavior_id!r}: a simulator that acts chose a branch index outside "
            f"its branches of sizes {list(spec.discrete_branches)}."
        )
