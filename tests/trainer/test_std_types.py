"""Every kind of standard deviation under every algorithm: trained, resumed, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sensor_specs import behavior as behavior_spec
from sensor_specs import vector
from test_every_combination import build, play

from trainer.checkpoint import CheckpointStore
from trainer.config.hyperparameters import HYPERPARAMETERS
from trainer.export_onnx import export
from trainer.unity_checks import check
from trainer.unity_model import read_model

STD_TYPES = ("learned", "fixed", "state_log_std", "state_softplus")
OF_THE_DEVIATION = ("log_std", "std_head.weight", "std_head.bias")


@pytest.mark.parametrize("has_memory", [False, True], ids=["", "memory"])
@pytest.mark.parametrize("std_type", STD_TYPES)
@pytest.mark.parametrize("trainer_type", HYPERPARAMETERS)
def test_algorithm_learns_the_deviation_that_it_may_learn(
    trainer_type: str, std_type: str, has_memory: bool, tmp_path: Path
) -> None:
    spec = behavior_spec(vector(4), continuous=2, branches=(3,))
    words = {"has_memory": has_memory, "trainer_type": trainer_type, "std_type": std_type}
    first = build(tmp_path / "first", spec, **words)  # type: ignore[arg-type] # one of each
    before = {name: weights.clone() for name, weights in first.policy.state_dict().items()}
    play(first, 1, has_masks=False)
    after = first.policy.state_dict()
    of_it = [name for name in OF_THE_DEVIATION if name in after]
    assert len(of_it) == (2 if std_type.startswith("state") else 1)
    for name in of_it:
        assert torch.equal(after[name], before[name]) == (std_type == "fixed"), name

    store = CheckpointStore(tmp_path / "Crab", keep=1)
    store.save(first.state_dict(), first.step, None)
    state, _ = store.load()
    second = build(tmp_path / "second", spec, state=state, **words)  # type: ignore[arg-type]
    for one, other in zip(
        play(first, 2, has_masks=False), play(second, 2, has_masks=False), strict=True
    ):
        np.testing.assert_array_equal(one.continuous, other.continuous)
    for name, weights in first.policy.state_dict().items():
        assert torch.equal(weights, second.policy.state_dict()[name]), name

    path = tmp_path / "Crab.onnx"
    export(second.policy, spec, path)  # raises when the file acts differently from the policy
    assert [found for found in check(read_model(path), spec) if found.verdict] == []
    for made in (first, second):
        made.metrics.close()
