from __future__ import annotations

import numpy as np
import torch

from trainer.rollout.carried import CarriedMemory


def new() -> CarriedMemory:
    return CarriedMemory(2, torch.device("cpu"))


def test_new_lanes_carry_nothing_however_high_they_are() -> None:
    assert new().of(np.array([3, 1000])).tolist() == [[0, 0], [0, 0]]


def test_each_lane_carries_its_own_and_growing_loses_nothing() -> None:
    carried = new()
    carried.of(np.array([5, 2]))
    carried.keep(np.array([5, 2]), torch.tensor([[5.0, 5.5], [2.0, 2.5]]))
    assert carried.of(np.array([2, 700, 5])).tolist() == [[2, 2.5], [0, 0], [5, 5.5]]


def test_what_was_given_is_a_copy() -> None:
    carried = new()
    before = carried.of(np.array([1]))
    carried.keep(np.array([1]), torch.ones(1, 2))
    assert before.tolist() == [[0, 0]]


def test_forgotten_lanes_carry_nothing_and_unknown_ones_are_no_problem() -> None:
    carried = new()
    carried.keep(np.array([1, 2]), torch.ones(2, 2))
    lanes = np.array([1, 5000])
    lanes.setflags(write=False)  # as those of a message
    carried.forget(lanes)
    assert carried.of(np.array([1, 2])).tolist() == [[0, 0], [1, 1]]
    carried.forget(np.array([], np.int64))
