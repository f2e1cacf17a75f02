from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from trainer.rollout.rollout import Rollout


def rollout_of(**changes: Any) -> Rollout:
    """Three decisions in two segments, two reward signals."""
    columns: dict[str, Any] = {
        "obs": (torch.zeros(3, 4),),
        "action_mask": None,
        "continuous": torch.zeros(3, 1),
        "discrete": torch.zeros(3, 0, dtype=torch.int64),
        "log_probs": torch.zeros(3, 1),
        "rewards": torch.zeros(3, 2),
        "segment_starts": torch.tensor([0, 2, 3]),
        "bootstrap_obs": (torch.zeros(2, 4),),
        "terminated": torch.tensor([False, True]),
    }
    return Rollout(**{**columns, **changes})


def test_what_follows_is_the_next_row_within_a_segment_and_the_bootstrap_at_its_end() -> None:
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    bootstrap = torch.tensor([[5.0, 50.0], [6.0, 60.0]])
    following = rollout_of().next_values(values, bootstrap)
    # row 2 ends a terminated segment: nothing follows, and row 0 does not follow it either
    assert following.tolist() == [[2.0, 20.0], [5.0, 50.0], [0.0, 0.0]]
    assert values.tolist() == [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]
    assert bootstrap.tolist() == [[5.0, 50.0], [6.0, 60.0]]


def test_segment_ends_are_the_last_rows() -> None:
    assert rollout_of().is_segment_end().tolist() == [False, True, True]


def test_rewards_can_be_filled_in_later() -> None:
    rollout = dataclasses.replace(rollout_of(), rewards=torch.ones(3, 5))
    assert len(rollout) == 3


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("log_probs", torch.zeros(2, 1), "log_probs has shape (2, 1), expected (3, 1)"),
        ("continuous", torch.zeros(4, 1), "continuous has shape (4, 1), expected (3, 1)"),
        ("discrete", torch.zeros(1, 0), "discrete has shape (1, 0), expected (3, 0)"),
        ("terminated", torch.zeros(3), "terminated has shape (3,), expected (2,)"),
    ],
)
def test_column_of_another_length_is_named(name: str, wrong: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        rollout_of(**{name: wrong})
