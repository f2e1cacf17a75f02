"""What the critic thinks of a whole rollout, and of what follows it.

Letters: B decisions of all segments end to end, S segments, R reward signals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.nn.actor_critic import ActorCritic
from trainer.nn.sensors import Inputs
from trainer.rollout.rollout import Rollout
from trainer.rollout.sequences import Continued


def ask_critic(
    policy: ActorCritic, rollout: Rollout, inputs: Inputs, following: Inputs
) -> tuple[Tensor, Tensor]:
    """Asks for the values of everything in a rollout, in pieces.

    The layers of a whole rollout at once would be most of the process's memory.

    Args:
        policy: who is asked.
        rollout: B decisions in S segments.
        inputs: of its decisions.
        following: of what follows its segments.

    Returns:
        Values (B, R) of the decisions and (S, R) of what follows.
    """
    if rollout.sequences is None:
        return policy.values_in_pieces(inputs), policy.values_in_pieces(following)
    continued = Continued(rollout.sequences, rollout.segment_starts)
    features = continued.join(policy.critic_features(inputs), policy.critic_features(following))
    pieces = continued.in_pieces(policy.critic_body.rows_at_once)
    values = [policy.values_of(features[rows], sequences) for rows, sequences in pieces]
    return continued.split(torch.cat(values))
