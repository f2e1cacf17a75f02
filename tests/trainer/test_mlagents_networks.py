"""Every kind of network that the real mlagents-learn 1.1.0 has saved: mlagents_networks/."""

from __future__ import annotations

import copy
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from pytest import approx
from sensor_specs import behavior, entities, image, random_obs, vector
from torch import Tensor

from envs.spec import BehaviorSpec, ObservationSpec
from trainer.actor import to_simulator
from trainer.behavior import Behavior
from trainer.checkpoint import CheckpointError
from trainer.config.settings import BehaviorSettings
from trainer.mlagents.adopt import Adopted, adopt
from trainer.mlagents.checkpoint import MlagentsCheckpoint, load_start
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.saved_policy import restore_policy
from trainer.unity_checks import check
from trainer.unity_model import read_model

RUNS = Path(__file__).parent / "mlagents_networks"
NAMES = sorted(path.parent.name for path in RUNS.glob("*/run.json"))
MAKE_SPEC: dict[int, Callable[..., ObservationSpec]] = {1: vector, 2: entities, 3: image}
ROWS, STEPS = 64, 5
MEMORY = {"memory_size": 8, "sequence_length": 4}


def about(run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RUNS / run / "run.json").read_text())
    return found


def spec_of(run: str) -> BehaviorSpec:
    sensors = [
        MAKE_SPEC[len(sensor["shape"])](*sensor["shape"], sensor["name"], is_goal=sensor["is_goal"])
        for sensor in about(run)["sensors"]
    ]
    found = about(run)
    return behavior(*sensors, continuous=found["continuous"], branches=tuple(found["branches"]))


def settings_of(run: str, **network: Any) -> BehaviorSettings:
    words = about(run)["behavior"]
    words["network_settings"] |= network
    return BehaviorSettings.model_validate(words)


def unpacked(run: str, name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(lzma.decompress((RUNS / run / f"{name}.xz").read_bytes()))
    return path


def answers(run: str) -> dict[str, NDArray[Any]]:
    with np.load(RUNS / run / "answers.npz") as found:
        return dict(found)


@pytest.fixture
def checkpoint(run: str, tmp_path: Path) -> MlagentsCheckpoint:
    found = load_start(unpacked(run, "checkpoint.pt", tmp_path))
    assert isinstance(found, MlagentsCheckpoint)
    return found


@pytest.fixture
def adopted(run: str, checkpoint: MlagentsCheckpoint) -> Adopted:
    return adopt(checkpoint, "Crab", spec_of(run), settings_of(run), seed=7)


@pytest.fixture
def policy(adopted: Adopted) -> ActorCritic:
    torch.set_num_threads(1)
    return restore_policy(adopted.state).policy


every_run = pytest.mark.parametrize("run", NAMES)


def as_simulator_sends(spec: BehaviorSpec, seed: int) -> list[Tensor]:
    """Vectors like those of noisy_simulator.py, some far outside; images dark and bright."""
    obs = random_obs(spec, ROWS, seed)
    for i, column in enumerate(obs):
        if column.ndim == 2:
            column.mul_(1 + i).add_(10 * i)
            column[::8] *= 9
        elif column.dtype == torch.uint8:
            column[::2] //= 8
    return obs


def random_mask(spec: BehaviorSpec, seed: int) -> Tensor | None:
    """Forbids some actions, but never the first of a branch."""
    branches = spec.action_spec.discrete_branches
    if not branches:
        return None
    allowed = torch.rand(ROWS, sum(branches), generator=torch.Generator().manual_seed(seed)) < 0.6
    allowed[:, [sum(branches[:k]) for k in range(len(branches))]] = True
    return allowed


@every_run
def test_policy_acts_as_ml_agents_own_export_of_the_same_checkpoint(
    run: str, policy: ActorCritic, tmp_path: Path
) -> None:
    """onnxruntime runs the file that mlagents-learn has exported; memory is fed back to both."""
    session = onnxruntime.InferenceSession(unpacked(run, "Crab.onnx", tmp_path))
    outputs = [output.name for output in session.get_outputs()]
    spec = spec_of(run)
    theirs_memory: NDArray[Any] = np.zeros((ROWS, 1, policy.memory_size), np.float32)
    memory = torch.zeros(ROWS, policy.memory_width)
    continuous, discrete = [], []
    for step in range(STEPS):
        obs, mask = as_simulator_sends(spec, step), random_mask(spec, step)
        feed = {
            f"obs_{i}": column.numpy() / np.float32(255 if column.dtype == torch.uint8 else 1)
            for i, column in enumerate(obs)
        }
        if mask is not None:
            feed["action_masks"] = mask.float().numpy()
        if policy.memory_size:
            feed["recurrent_in"] = theirs_memory
        theirs = dict(zip(outputs, session.run(outputs, feed), strict=True))
        with torch.no_grad():
            chosen = policy.act(
                policy.inputs(obs), mask, torch.Generator(), deterministic=True, memory=memory
            )
        ours = to_simulator(chosen)
        if policy.continuous_size:
            continuous.append(theirs["deterministic_continuous_actions"])
            assert ours.continuous == approx(continuous[-1], abs=1e-5)
        if mask is not None:
            discrete.append(theirs["deterministic_discrete_actions"])
            assert ours.discrete.tolist() == discrete[-1].tolist()
        if policy.memory_size:
            assert chosen.memory is not None
            theirs_memory, memory = theirs["recurrent_out"], chosen.memory
            assert memory[:, : policy.memory_size].numpy() == approx(theirs_memory[:, 0], abs=1e-5)
    # Something is being compared: the answers differ from row to row, 300 tolerances and more.
    if policy.continuous_size:
        assert (np.concatenate(continuous).std(axis=0) > 0.003).all()
    if policy.branch_sizes:
        assert len(np.unique(np.concatenate(discrete), axis=0)) > 3


@every_run
def test_critic_says_what_ml_agents_critic_said(run: str, policy: ActorCritic) -> None:
    """With memory: of two sequences of three decisions each, from a memory that is not empty."""
    told = answers(run)
    obs = [torch.from_numpy(told[f"obs_{i}"]) for i in range(len(about(run)["sensors"]))]
    sequences = None
    if policy.memory_size:
        carried = torch.from_numpy(told["memory"])
        if policy.memory_width > policy.memory_size:  # the actor's memory does not matter
            carried = torch.cat([torch.full_like(carried, 9.0), carried], dim=1)
        sequences = Sequences(torch.tensor([0, 3, 6]), carried, 3)
    with torch.no_grad():
        values = policy.values(policy.inputs(obs), sequences)
    assert values[:, 0].numpy() == approx(told["values"], abs=1e-5)
    assert told["values"].std() > 0.01


@every_run
def test_weights_and_moments_of_each_parameter_lie_in_the_same_place(
    run: str, checkpoint: MlagentsCheckpoint
) -> None:
    """Each of ML-Agents' parameters and its moments get the number that ML-Agents' Adam gives it.

    That the weights are in the right place is shown by the tests above.
    """
    modules = copy.deepcopy(dict(checkpoint.modules))
    for number, name in enumerate(answers(run)["parameters"].tolist()):
        module, _, parameter = name.partition(" ")
        modules[module][parameter].fill_(number)
    for number, entry in modules["Optimizer:value_optimizer"]["state"].items():
        entry["exp_avg"].fill_(number)
        entry["exp_avg_sq"].fill_(1000 + number)
    marked = MlagentsCheckpoint(checkpoint.path, modules)
    state = adopt(marked, "Crab", spec_of(run), settings_of(run), seed=7).state
    moments = state["algorithm"]["optimizer"]["state"][0]
    start, seen = 0, set()
    for name, parameter in restore_policy(state).policy.named_parameters():
        end = start + parameter.numel()
        assert torch.equal(moments["exp_avg"][start:end], parameter.detach().flatten()), name
        seen |= set(moments["exp_avg"][start:end].tolist())
        start = end
    assert torch.equal(moments["exp_avg_sq"], moments["exp_avg"] + 1000)
    assert start == len(moments["exp_avg"])
    # Numbers 0 to 5 are ML-Agents' constants for Unity; everything else has found a place.
    assert seen == set(range(6, len(answers(run)["parameters"])))


@every_run
def test_report_says_what_was_taken(run: str, adopted: Adopted) -> None:
    (line,) = adopted.report
    assert "optimiser (Adam after " in line
    has_vectors = any(len(sensor["shape"]) == 1 for sensor in about(run)["sensors"])
    assert ("normaliser (" in line) == has_vectors


@every_run
def test_state_is_what_a_behavior_saves_itself(run: str, adopted: Adopted, tmp_path: Path) -> None:
    going_on = Behavior(
        "Crab",
        spec_of(run),
        settings_of(run),
        tmp_path / "Crab",
        seed=7,
        device=torch.device("cpu"),
        is_training=True,
        state=adopted.state,
        starts_at_zero=False,
    )
    try:
        assert 180 < going_on.step < 230
        own = going_on.state_dict()
        assert own.keys() == adopted.state.keys()
        weights = own["policy"]
        assert isinstance(weights, dict)
        for name, tensor in adopted.state["policy"].items():
            assert torch.equal(weights[name], tensor), name
    finally:
        going_on.metrics.close()


@every_run
def test_export_of_ml_agents_has_nothing_that_unity_objects_to(run: str, tmp_path: Path) -> None:
    checks = check(read_model(unpacked(run, "Crab.onnx", tmp_path)), spec_of(run))
    assert [f"{found.found} | {found.consequence}" for found in checks if found.verdict] == []


@pytest.mark.parametrize(
    ("run", "network", "named"),
    [
        ("simple", {"vis_encode_type": "match3"}, "conv_layers.0.weight: checkpoint (16, 3, 8, 8)"),
        ("simple", {"vis_encode_type": "resnet"}, "camera encoder: checkpoint 12 tensors more"),
        ("match3", {"vis_encode_type": "fully_connected"}, "camera encoder: checkpoint 16 tensors"),
        ("goal", {"goal_conditioning_type": "none"}, "goal conditioning: checkpoint 22 tensors"),
        (
            "goal_unconditioned",
            {"goal_conditioning_type": "hyper"},
            "_body_endoder.layers.0.weight",
        ),
        ("everything", {"memory": None}, "memory (LSTM): checkpoint 8 tensors more"),
        ("everything", {"normalize": False}, "normaliser: checkpoint 12 tensors more"),
        ("entities", {"memory": MEMORY}, "lstm.weight_ih_l0: checkpoint none, now"),
    ],
)
def test_other_network_is_refused_with_the_difference(
    run: str, checkpoint: MlagentsCheckpoint, network: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        adopt(checkpoint, "Crab", spec_of(run), settings_of(run, **network), seed=7)
    assert "Behavior 'Crab'" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("run", "sensors", "named"),
    [
        ("entities", (vector(4),), "attention over variable-length observations: checkpoint 28"),
        (
            "entities_alone",
            (vector(2), entities(5, 4)),
            "x_self_encoder.seq_layers.0.weight: checkpoint none",
        ),
        ("fully_connected", (image(3, 4, 6),), "dense.0.weight: checkpoint (8, 60), now (8, 72)"),
        ("goal", (vector(3), vector(4), vector(2)), "goal conditioning: checkpoint 22 tensors"),
    ],
)
def test_other_sensors_are_refused_with_the_difference(
    run: str, checkpoint: MlagentsCheckpoint, sensors: tuple[Any, ...], named: str
) -> None:
    found = about(run)
    spec = behavior(*sensors, continuous=found["continuous"], branches=tuple(found["branches"]))
    with pytest.raises(CheckpointError) as caught:
        adopt(checkpoint, "Crab", spec, settings_of(run), seed=7)
    assert named in str(caught.value)
