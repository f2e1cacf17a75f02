"""Checkpoints that the real mlagents-learn 1.1.0 has saved; see mlagents_runs/make_runs.py."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from pytest import approx

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.actor import to_simulator
from trainer.behavior import Behavior
from trainer.checkpoint import CheckpointError
from trainer.config.settings import BehaviorSettings
from trainer.mlagents.adopt import Adopted, adopt
from trainer.mlagents.checkpoint import MlagentsCheckpoint, load_start
from trainer.saved_policy import restore_policy

RUNS = Path(__file__).parent / "mlagents_runs"
ACTIONS = {
    "continuous": ActionSpec(2, ()),
    "discrete": ActionSpec(0, (3, 2)),
    "hybrid": ActionSpec(2, (3, 2)),
    "shared_critic": ActionSpec(2, ()),
    "without_normalizer": ActionSpec(2, ()),
    "memory": ActionSpec(2, (3, 2)),
}


def spec_of(run: str, sizes: tuple[int, ...] = (3, 2)) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, f"obs/{i}")
        for i, size in enumerate(sizes)
    ]
    return BehaviorSpec(sensors, ACTIONS[run])


def settings_of(run: str, **network: Any) -> BehaviorSettings:
    shape: dict[str, Any] = {"hidden_units": 8, "num_layers": 2, "normalize": True}
    changes: dict[str, Any] = {
        "hybrid": {"num_layers": 1},
        "without_normalizer": {"normalize": False},
        "memory": {"memory": {"memory_size": 8, "sequence_length": 4}},
    }
    return BehaviorSettings.model_validate(
        {
            "hyperparameters": {
                "batch_size": 16,
                "buffer_size": 64,
                "shared_critic": run == "shared_critic",
            },
            "network_settings": {**shape, **changes.get(run, {}), **network},
        }
    )


def read(run: str) -> MlagentsCheckpoint:
    found = load_start(RUNS / run / "Crab" / "checkpoint.pt")
    assert isinstance(found, MlagentsCheckpoint)
    return found


def adopted(run: str, **network: Any) -> Adopted:
    return adopt(read(run), "Crab", spec_of(run), settings_of(run, **network), seed=7)


def observations(count: int = 64) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Like those of two_sensors.py, a few of them far outside."""
    chance = np.random.default_rng(5)
    near, wide = chance.normal(size=(count, 3)), 100 + 10 * chance.normal(size=(count, 2))
    near[::8] *= 9
    wide[::8] -= 400
    return [near.astype(np.float32), wide.astype(np.float32)]


@pytest.mark.parametrize("run", ACTIONS)
def test_policy_acts_as_ml_agents_own_export_of_the_same_checkpoint(run: str) -> None:
    """onnxruntime runs the file that mlagents-learn has exported; ours must answer the same."""
    saved = restore_policy(adopted(run).state)
    obs = observations()
    session = onnxruntime.InferenceSession(RUNS / run / "Crab.onnx")
    feed = {f"obs_{i}": column for i, column in enumerate(obs)}
    mask = memory = None
    branches = list(ACTIONS[run].discrete_branches)
    if branches:
        mask = np.random.default_rng(6).random((len(obs[0]), sum(branches))) < 0.6
        mask[:, ::3] = True  # each branch has an allowed action
        feed["action_masks"] = mask.astype(np.float32)
    with torch.no_grad():
        inputs = saved.policy.inputs([torch.from_numpy(column) for column in obs])
    if saved.policy.memory_size:
        memory = torch.randn(len(obs[0]), saved.policy.memory_width)
        feed["recurrent_in"] = memory[:, None, : saved.policy.memory_size].numpy()
    allowed = None if mask is None else torch.from_numpy(mask)
    chosen = saved.policy.act(inputs, allowed, torch.Generator(), True, memory)
    action = to_simulator(chosen)
    if ACTIONS[run].continuous_size:
        (theirs,) = session.run(["deterministic_continuous_actions"], feed)
        assert np.abs(theirs).max() > 1e-3  # something is being compared
        assert action.continuous == approx(theirs, abs=1e-5)
    if branches:
        (theirs,) = session.run(["deterministic_discrete_actions"], feed)
        assert action.discrete.tolist() == theirs.tolist()
        assert len({tuple(row) for row in theirs.tolist()}) > 2


def test_state_is_what_a_behavior_saves_itself(tmp_path: Path) -> None:
    behavior = Behavior(
        "Crab",
        spec_of("hybrid"),
        settings_of("hybrid"),
        tmp_path / "Crab",
        seed=7,
        device=torch.device("cpu"),
        is_training=True,
        state=adopted("hybrid").state,
        starts_at_zero=False,
    )
    try:
        assert behavior.step == 310
        own = behavior.state_dict()
        assert adopted("hybrid").state.keys() == own.keys()
    finally:
        behavior.metrics.close()


@pytest.mark.parametrize("run", ACTIONS)
def test_report_says_what_was_taken(run: str) -> None:
    (line,) = adopted(run).report
    assert line.startswith("Taken from ML-Agents' ")
    assert "checkpoint.pt: weights of actor and critic (" in line
    assert ("normaliser (" in line) == (run != "without_normalizer")
    # 4 updates of 3 epochs with 70 decisions in minibatches of 16; with memory 80 and more, because
    # ML-Agents pads sequences, 10 decisions to 12
    steps = 60 if run == "memory" else 48
    assert f"optimiser (Adam after {steps} steps)" in line


def test_critic_and_normalizer_are_taken_value_by_value() -> None:
    theirs = read("continuous").modules
    policy = adopted("continuous").state["policy"]
    critic = theirs["Optimizer:critic"]
    layer = "network_body._body_endoder.seq_layers.2.weight"
    assert torch.equal(policy["critic_body.hidden.layers.1.weight"], critic[layer])
    assert not torch.equal(policy["actor_body.hidden.layers.1.weight"], critic[layer])
    head = "value_heads.value_heads.extrinsic.bias"
    assert torch.equal(policy["value_head.bias"], critic[head])
    # The sensors are around 0 and around 100, with deviations of 1 and 10.
    deviation = 1 / policy["normalizer.scale"]
    assert policy["normalizer.mean"].tolist() == approx([0, 0, 0, 100, 100], abs=3)
    assert deviation.tolist() == approx([1, 1, 1, 10, 10], rel=0.25)
    assert policy["normalizer.steps"].item() > 250


@pytest.mark.parametrize("run", ["hybrid", "shared_critic"])
def test_moments_of_adam_lie_where_the_weights_lie(run: str) -> None:
    """Puts each parameter's own number into its moments: order and gaps show."""
    checkpoint = read(run)
    modules = copy.deepcopy(dict(checkpoint.modules))
    for number, entry in modules["Optimizer:value_optimizer"]["state"].items():
        entry["exp_avg"].fill_(number)
        entry["exp_avg_sq"].fill_(1000 + number)
    marked = MlagentsCheckpoint(checkpoint.path, modules)
    state = adopt(marked, "Crab", spec_of(run), settings_of(run), seed=7).state
    moments = state["algorithm"]["optimizer"]["state"][0]
    policy = restore_policy(state).policy
    found = {}
    start = 0
    for name, parameter in policy.named_parameters():
        end = start + parameter.numel()
        found[name] = sorted(set(moments["exp_avg"][start:end].tolist()))
        assert (moments["exp_avg_sq"][start:end] == 1000 + moments["exp_avg"][start:end]).all()
        start = end
    assert len(moments["exp_avg"]) == start
    # Numbers 0 to 5 are ML-Agents' constants for Unity; then actor, and critic behind it.
    if run == "hybrid":
        assert found == {
            "actor_body.hidden.layers.0.weight": [6],
            "actor_body.hidden.layers.0.bias": [7],
            "log_std": [8],
            "mean_head.weight": [9],
            "mean_head.bias": [10],
            "branch_head.weight": [11, 13],
            "branch_head.bias": [12, 14],
            "critic_body.hidden.layers.0.weight": [15],
            "critic_body.hidden.layers.0.bias": [16],
            "value_head.weight": [17],
            "value_head.bias": [18],
        }
    else:
        assert found["value_head.weight"] == [13]
        assert found["mean_head.bias"] == [12]
        assert found["actor_body.hidden.layers.1.bias"] == [9]


def changed(run: str, **modules: Any) -> MlagentsCheckpoint:
    checkpoint = read(run)
    document = {**copy.deepcopy(dict(checkpoint.modules)), **modules}
    return MlagentsCheckpoint(
        checkpoint.path, {name: value for name, value in document.items() if value is not None}
    )


@pytest.mark.parametrize(
    ("adam", "reason"),
    [
        (None, "the checkpoint has no 'Optimizer:value_optimizer'"),
        ({"param_groups": [{"params": [0, 1]}], "state": {}}, "it is for 2 parameters, and the"),
        ({"param_groups": [{"params": [*range(19)]}], "state": {}}, "it knows nothing of "),
    ],
)
def test_optimizer_that_does_not_fit_starts_afresh_and_is_told(adam: Any, reason: str) -> None:
    checkpoint = changed("hybrid", **{"Optimizer:value_optimizer": adam})
    found = adopt(checkpoint, "Crab", spec_of("hybrid"), settings_of("hybrid"), seed=7)
    assert found.state["algorithm"]["optimizer"]["state"] == {}
    taken, not_taken = found.report
    assert "Adam" not in taken
    assert f"optimiser ({reason}" in not_taken


def test_signals_of_one_side_only_are_told() -> None:
    checkpoint = changed("continuous", **{"Module:Curiosity": {"x": torch.zeros(1)}})
    critic = checkpoint.modules["Optimizer:critic"]
    for kind in ("weight", "bias"):
        critic[f"value_heads.value_heads.curiosity.{kind}"] = critic.pop(
            f"value_heads.value_heads.extrinsic.{kind}"
        )
    found = adopt(checkpoint, "Crab", spec_of("continuous"), settings_of("continuous"), seed=7)
    _, not_taken = found.report
    assert "value head of extrinsic (the checkpoint has none; it starts afresh)" in not_taken
    assert "value head of curiosity (nothing here uses it)" in not_taken
    assert "'Module:Curiosity' (nothing here uses it)" in not_taken
    assert not_taken.count("extrinsic (") == 1
    assert found.state["policy"]["value_head.weight"].abs().max() > 0


@pytest.mark.parametrize(
    ("run", "network", "sizes", "named"),
    [
        ("continuous", {"hidden_units": 16}, (3, 2), "checkpoint (8, 5), now (16, 5)"),
        ("continuous", {"num_layers": 1}, (3, 2), "dense layers: checkpoint 4 tensors more"),
        ("continuous", {"num_layers": 3}, (3, 2), "seq_layers.4.weight: checkpoint none, now"),
        ("continuous", {"normalize": False}, (3, 2), "normaliser: checkpoint 12 tensors more"),
        ("without_normalizer", {"normalize": True}, (3, 2), "running_mean: checkpoint none, now"),
        ("continuous", {}, (2, 3), "running_mean: checkpoint (3,), now (2,)"),
        ("continuous", {"activation": "tanh"}, (3, 2), "activation: ML-Agents' is always swish"),
        ("continuous", {"std_type": "fixed"}, (3, 2), "std_type: ML-Agents' is always learned"),
        ("hybrid", {"std_type": "state_softplus"}, (3, 2), "learned, now state_softplus"),
        ("memory", {"memory": None}, (3, 2), "memory (LSTM): checkpoint 8 tensors more"),
    ],
)
def test_other_network_is_refused_with_the_difference(
    run: str, network: dict[str, Any], sizes: tuple[int, ...], named: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        adopt(read(run), "Crab", spec_of(run, sizes), settings_of(run, **network), seed=7)
    text = str(caught.value)
    for words in ("Behavior 'Crab'", "checkpoint.pt does not fit", named, "network_settings"):
        assert words in text, text


def test_other_actions_are_refused() -> None:
    with pytest.raises(CheckpointError, match="discrete actions: checkpoint 4 tensors more"):
        adopt(
            read("hybrid"),
            "Crab",
            spec_of("continuous"),
            settings_of("hybrid"),
            seed=7,
        )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"Policy": {}, "Optimizer:q_network": {}}, "ML-Agents' SAC trainer"),
        ({"Policy": {}, "Optimizer:adam": {}, "Optimizer:critic": {}}, "ML-Agents' POCA trainer"),
        ({"Policy": {}, "global_step": {}}, "'Optimizer:critic' is missing; it holds Policy, glob"),
        ({"weights": torch.ones(1)}, "PyTorch file of another program"),
    ],
)
def test_file_of_another_trainer_is_refused(
    tmp_path: Path, document: dict[str, Any], words: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(document, path)
    with pytest.raises(CheckpointError, match=words):
        load_start(path)


class Boom:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was_run"),))


def test_code_in_a_file_of_ml_agents_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"Policy": {}, "Optimizer:critic": {}, "extra": Boom()}, "checkpoint.pt")
    with pytest.raises(CheckpointError, match="code in it is never run"):
        load_start(Path("checkpoint.pt"))
    assert not Path("was_run").exists()
    torch.load("checkpoint.pt", weights_only=False)  # the file is as dangerous as it claims
    assert Path("was_run").exists()
