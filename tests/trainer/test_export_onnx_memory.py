"""ONNX files of policies with memory: several decisions in a row, as Unity makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from envs.batch import Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from trainer.actor import to_simulator
from trainer.config.settings import BehaviorSettings, MemorySettings, NetworkSettings
from trainer.evaluation import CheckpointPlayer, OnnxPlayer
from trainer.export_onnx import LIMIT, ExportError, compare, export
from trainer.nn.actor_critic import ActorCritic
from trainer.onnx_graph import build_model
from trainer.onnx_policy import OnnxError, OnnxPolicy
from trainer.saved_policy import SavedPolicy

KINDS: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (3, ()),
    "branches": (0, (3, 3, 2)),
    "hybrid": (2, (4, 2)),
}
MEMORY = 12
# reference/mlagents-export-and-outputs.md, 1.3; no Split, which Sentis lacked
OPERATORS = {
    *("Add", "ArgMax", "Clip", "Concat", "Div", "Exp", "Gemm", "Identity", "LSTM", "Log", "Mul"),
    *("Multinomial", "RandomNormalLike", "Sigmoid", "Slice", "Softmax", "Squeeze", "Sub"),
    *("Transpose", "Unsqueeze"),
}


def make_spec(kind: str) -> BehaviorSpec:
    sensors = [
        ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, f"s{size}")
        for size in (4, 2)
    ]
    return BehaviorSpec(sensors, ActionSpec(*KINDS[kind]))


def make_policy(spec: BehaviorSpec, shared_critic: bool = False) -> ActorCritic:
    torch.manual_seed(0)
    settings = NetworkSettings(
        hidden_units=32, num_layers=1, normalize=True, memory=MemorySettings(memory_size=MEMORY)
    )
    policy = ActorCritic("Walker", spec, settings, 1, shared_critic)
    with torch.no_grad():  # like a trained one: what is remembered matters
        for name, parameter in policy.named_parameters():
            if "bias" in name or name == "log_std" or "head" in name:
                parameter.normal_(std=0.7)
    policy.update_normalizer([torch.randn(500, 4) * 3, torch.randn(500, 2) + 10])
    return policy


def sights(num_rows: int, num_steps: int) -> list[list[np.ndarray[Any, Any]]]:
    """Gives observations of each step."""
    chance = np.random.default_rng(1)
    return [
        [chance.normal(0, 3, (num_rows, 4)), chance.normal(10, 1, (num_rows, 2))]
        for _ in range(num_steps)
    ]


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("shared_critic", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_file_acts_like_the_live_policy_over_several_decisions(
    tmp_path: Path, kind: str, shared_critic: bool
) -> None:
    """With onnxruntime alone, and what comes out of `recurrent_out` fed back as Unity does it."""
    spec = make_spec(kind)
    policy = make_policy(spec, shared_critic)
    path = tmp_path / "Walker.onnx"
    assert export(policy, spec, path).max_difference < LIMIT
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert model.opset_import[0].version == 9

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    length = sum(policy.branch_sizes)
    for num_rows in (1, 5):
        recurrent = np.zeros((num_rows, 1, MEMORY), np.float32)
        memory = torch.zeros(num_rows, policy.memory_width)
        for obs in sights(num_rows, 6):
            columns = [column.astype(np.float32) for column in obs]
            feed = {"obs_0": columns[0], "obs_1": columns[1], "recurrent_in": recurrent}
            if length:
                feed["action_masks"] = np.ones((num_rows, length), np.float32)
            names = [value.name for value in session.get_outputs()]
            answers = dict(zip(names, session.run(names, feed), strict=True))
            recurrent = answers["recurrent_out"]
            with torch.no_grad():
                inputs = policy.inputs([torch.from_numpy(column) for column in columns])
            chosen = policy.act(inputs, None, torch.Generator(), True, memory)
            assert chosen.memory is not None
            memory = chosen.memory
            expected = to_simulator(chosen)
            if policy.continuous_size:
                found = answers["deterministic_continuous_actions"]
                assert found == pytest.approx(expected.continuous, abs=1e-5)
            if length:
                assert np.array_equal(answers["deterministic_discrete_actions"], expected.discrete)
            assert recurrent[:, 0] == pytest.approx(memory[:, :MEMORY].numpy(), abs=1e-5)
        assert np.abs(recurrent).max() > 0.1  # it holds something


def test_contract_has_memory_last_on_both_sides() -> None:
    model = build_model(make_policy(make_spec("hybrid")))
    assert [(v.name, shape_of(v)) for v in model.graph.input] == [
        ("obs_0", ["batch", 4]),
        ("obs_1", ["batch", 2]),
        ("action_masks", ["batch", 6]),
        ("recurrent_in", ["batch", 1, MEMORY]),
    ]
    last = model.graph.output[-1]
    assert (last.name, shape_of(last)) == ("recurrent_out", ["batch", 1, MEMORY])
    assert last.type.tensor_type.elem_type == TensorProto.FLOAT
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    assert constants["memory_size.1"].tolist() == [float(MEMORY)]
    (lstm,) = (node for node in model.graph.node if node.op_type == "LSTM")
    assert [(a.name, a.i) for a in lstm.attribute] == [("hidden_size", MEMORY // 2)]


def replace(model: onnx.ModelProto, name: str, by: Callable[[Any], Any]) -> None:
    entry = next(entry for entry in model.graph.initializer if entry.name == name)
    changed = np.ascontiguousarray(by(numpy_helper.to_array(entry)), np.float32)
    entry.CopyFrom(numpy_helper.from_array(changed, name))


def gates_as_in_torch(model: onnx.ModelProto) -> None:
    def reorder(array: Any) -> Any:
        i, o, f, c = np.split(array, 4, axis=1)
        return np.concatenate([i, f, c, o], axis=1)

    for name in ("lstm.W", "lstm.R"):
        replace(model, name, reorder)


def halves_exchanged(model: onnx.ModelProto) -> None:
    (lstm,) = (node for node in model.graph.node if node.op_type == "LSTM")
    lstm.input[5], lstm.input[6] = lstm.input[6], lstm.input[5]


def returned_exchanged(model: onnx.ModelProto) -> None:
    (concat,) = (node for node in model.graph.node if node.output[0] == "memory.after")
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]


def forgotten_bias(model: onnx.ModelProto) -> None:
    replace(model, "lstm.B", lambda array: array * 0)


@pytest.mark.parametrize(
    "damage", [gates_as_in_torch, halves_exchanged, returned_exchanged, forgotten_bias]
)
@pytest.mark.parametrize("kind", ["continuous", "branches"])
def test_comparison_notices_a_wrong_memory(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], kind: str
) -> None:
    spec = make_spec(kind)
    policy = make_policy(spec)
    model = build_model(policy)
    damage(model)
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(ExportError, match="differs by"):
        compare(tmp_path / "wrong.onnx", policy, spec, 64, 0)


def test_memory_that_only_goes_in_is_refused(tmp_path: Path) -> None:
    model = build_model(make_policy(make_spec("continuous")))
    del model.graph.output[-1]
    onnx.save(model, str(tmp_path / "half.onnx"))
    with pytest.raises(OnnxError, match="has only one of recurrent_in and recurrent_out"):
        OnnxPolicy(tmp_path / "half.onnx")


# --- playing --------------------------------------------------------------------------------------


def columns(obs: Sequence[np.ndarray[Any, Any]], lanes: Sequence[int]) -> dict[str, Any]:
    zeros = np.zeros(len(lanes), np.int32)
    return {
        "obs": tuple(column.astype(np.float32) for column in obs),
        "reward": zeros.astype(np.float32),
        "lane": np.array(lanes),
        "agent_id": zeros,
        "simulator": zeros,
        "team": zeros,
        "group_id": zeros,
        "group_reward": zeros.astype(np.float32),
    }


def played(
    player: CheckpointPlayer | OnnxPlayer, lanes: Sequence[int], num_steps: int
) -> list[np.ndarray[Any, Any]]:
    """Lets the player decide; agents are told apart by lane, what they see by row."""
    return [
        player.act(Decisions(**columns(obs, lanes))).continuous
        for obs in sights(len(lanes), num_steps)
    ]


def test_players_remember_per_agent_and_forget_when_an_episode_ends(tmp_path: Path) -> None:
    spec = make_spec("continuous")
    policy = make_policy(spec)
    export(policy, spec, tmp_path / "Walker.onnx")
    saved = SavedPolicy("Walker", 0, spec, BehaviorSettings(), policy)
    players: list[CheckpointPlayer | OnnxPlayer] = [
        CheckpointPlayer(saved, deterministic=True, seed=0, source="checkpoint"),
        OnnxPlayer(OnnxPolicy(tmp_path / "Walker.onnx"), deterministic=True, source="onnx"),
    ]
    runs = []
    for player in players:
        first = played(player, [70, 3, 5], 4)
        more = played(player, [70, 3, 5], 4)
        assert np.abs(more[0] - first[0]).min(axis=1).max() > 1e-3  # the same sight, remembered
        ended = columns(sights(2, 1)[0], [3, 70])
        player.end(Terminals(**ended, truncated=np.array([True, False])))
        last = played(player, [70, 3, 5], 4)
        for row in (0, 1):  # another agent in that lane begins as the first one did
            assert np.array_equal([a[row] for a in last], [a[row] for a in first])
        assert not np.allclose(last[0][2], first[0][2], atol=1e-3)
        runs.append(first + more + last)
    for found, expected in zip(*runs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
