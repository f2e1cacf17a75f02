"""Every option that all algorithms have: together they train, resume and export, and none is idle.

Taking any one of them away has to change what has been learnt after two updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from sensor_specs import behavior as behavior_spec
from sensor_specs import vector
from test_every_combination import build, play
from torch import Tensor

from trainer.checkpoint import CheckpointStore
from trainer.config.hyperparameters import HYPERPARAMETERS
from trainer.export_onnx import export

HYPER: Mapping[str, object] = {
    "critic_learning_rate": 0.02,
    "learning_rate_schedule": "constant",
    "max_grad_norm": 0.05,
    "normalize_advantages": False,
}
REWARD: Mapping[str, object] = {"normalize": True, "clip": 0.3}
NETWORK: Mapping[str, object] = {
    "normalize_clip": 0.4,
    "critic_hidden_units": 7,
    "critic_num_layers": 2,
    "layer_norm": True,
    "bounded_mean": True,
    "activation": "elu",
    "initialization": "orthogonal",
    "initial_log_std": -0.5,
    "std_type": "state_softplus",
    "min_std": 0.1,
}
# Options of NETWORK that others need.
WITH: Mapping[str, tuple[str, ...]] = {"std_type": ("min_std",)}
SPEC = behavior_spec(vector(4), continuous=2, branches=(3,))


def hyper_of(trainer_type: str) -> dict[str, object]:
    """The options that this algorithm has, away from its own defaults."""
    fields = HYPERPARAMETERS[trainer_type].model_fields
    options = {key: value for key, value in HYPER.items() if key in fields}
    if trainer_type in ("a2c", "reinforce"):  # False is their default
        options["normalize_advantages"] = True
    return options


@cache
def learnt(trainer_type: str, without: str | None, folder: Path) -> dict[str, Tensor]:
    """What the policy is after two updates, with all options but one."""
    hyper, reward, network = hyper_of(trainer_type), dict(REWARD), dict(NETWORK)
    for name in (without, *WITH.get(without or "", ())):
        for options in (hyper, reward, network):
            options.pop(name or "", None)
    made = build(
        folder / f"{trainer_type}-{without}",
        SPEC,
        trainer_type=trainer_type,
        hyperparameters=hyper,
        reward=reward,
        **network,  # type: ignore[arg-type] # none has the name of another argument
    )
    for seed in (1, 2):
        play(made, seed, has_masks=False)
    made.metrics.close()
    return {name: value.clone() for name, value in made.policy.state_dict().items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options")


@pytest.mark.parametrize(
    ("trainer_type", "option"),
    [
        (trainer_type, option)
        for trainer_type in HYPERPARAMETERS
        for option in (*hyper_of(trainer_type), *REWARD, *NETWORK)
    ],
)
def test_no_option_is_idle(trainer_type: str, option: str, folder: Path) -> None:
    full, reduced = learnt(trainer_type, None, folder), learnt(trainer_type, option, folder)
    same = full.keys() == reduced.keys() and all(
        full[name].shape == reduced[name].shape and torch.equal(full[name], reduced[name])
        for name in full
    )
    assert not same


@pytest.mark.parametrize("trainer_type", HYPERPARAMETERS)
def test_equal_options_learn_the_same(trainer_type: str, folder: Path) -> None:
    """Without this, a difference would say nothing."""
    once, again = learnt(trainer_type, None, folder), learnt(trainer_type, None, folder / "again")
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("trainer_type", HYPERPARAMETERS)
def test_all_options_together_are_resumed_and_exported(trainer_type: str, tmp_path: Path) -> None:
    words = {
        "trainer_type": trainer_type,
        "hyperparameters": hyper_of(trainer_type),
        "reward": REWARD,
        **NETWORK,
    }
    first = build(tmp_path / "first", SPEC, **words)  # type: ignore[arg-type] # one of each
    play(first, 1, has_masks=False)
    store = CheckpointStore(tmp_path / "Crab", keep=1)
    store.save(first.state_dict(), first.step, None)
    state, _ = store.load()
    second = build(tmp_path / "second", SPEC, state=state, **words)  # type: ignore[arg-type]
    for made in (first, second):
        play(made, 2, has_masks=False)
        made.metrics.close()
    for name, weights in first.policy.state_dict().items():
        assert torch.equal(weights, second.policy.state_dict()[name]), name
    assert export(second.policy, SPEC, tmp_path / "Crab.onnx").max_difference < 1e-5
