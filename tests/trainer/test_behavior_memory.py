"""What agents remember: while they act, once their episodes end, and when learning."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensor_specs import behavior as behavior_spec
from sensor_specs import entities, image, random_obs, vector
from torch import Tensor

from envs.batch import Actions, Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.behavior import Behavior
from trainer.behavior_match import BehaviorMismatchError
from trainer.compiled_policy import CompiledPolicy
from trainer.config.settings import BehaviorSettings, MemorySettings, NetworkSettings
from trainer.export_onnx import LIMIT, export
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.rollout.critic import ask_critic
from trainer.rollout.rollout import Rollout
from trainer.rollout.segments import take

SENSORS = [ObservationSpec((2,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes")]
CPU = torch.device("cpu")


def build(
    folder: Path,
    memory: dict[str, int] | None,
    *,
    actions: tuple[int, tuple[int, ...]] = (2, (3, 2)),
    state: dict[str, object] | None = None,
    deterministic: bool = False,
    **hyperparameters: Any,
) -> Behavior:
    torch.set_num_threads(1)  # as a run does for small networks
    settings = {
        "hyperparameters": {
            "batch_size": 64,
            "buffer_size": 256,
            "learning_rate": 0.01,
            "learning_rate_schedule": "constant",
            **hyperparameters,
        },
        "network_settings": {
            "hidden_units": 16,
            "num_layers": 1,
            "memory": memory,
            "deterministic": deterministic,
        },
    }
    return Behavior(
        "Crab",
        BehaviorSpec(SENSORS, ActionSpec(*actions)),
        BehaviorSettings.model_validate(settings),
        folder,
        seed=3,
        device=CPU,
        is_training=True,
        state=state,
        starts_at_zero=False,
    )


def columns(lanes: list[int], moment: int, reward: float = 0.0) -> dict[str, Any]:
    """What the agents in these lanes see differs from lane to lane and from moment to moment."""
    zeros = np.zeros(len(lanes), np.int32)
    own = np.array(lanes, np.float32)
    return {
        "obs": (np.stack([np.sin(1.3 * own + moment), np.cos(own * moment)], axis=1),),
        "reward": np.full(len(lanes), reward, np.float32),
        "lane": np.array(lanes),
        "agent_id": zeros,
        "simulator": zeros,
        "team": zeros,
        "group_id": zeros,
        "group_reward": np.zeros(len(lanes), np.float32),
    }


def ask(behavior: Behavior, lanes: list[int], moment: int) -> Actions:
    mask = np.ones((len(lanes), int(sum(behavior.policy.branch_sizes))), np.bool_)
    decisions = Decisions(**columns(lanes, moment), action_mask=mask)
    return behavior.decide([decisions])[0]


def end(behavior: Behavior, lanes: list[int], moment: int, truncated: bool = False) -> None:
    flags = np.full(len(lanes), truncated)
    behavior.end([Terminals(**columns(lanes, moment), truncated=flags)])


def carried_before(behavior: Behavior, row: int) -> Tensor:
    return behavior.log.tensors["memory"][row]


def crowd_lives(behavior: Behavior) -> list[int]:
    """Seven agents live for 21 moments; gives the rows that are an agent's first.

    Some agents skip moments; episodes end in both ways, and their lanes go on with other agents at
    once or later; one simulator is lost.
    """
    alive: set[int] = set()
    first_rows = []
    for moment in range(21):
        lanes = [lane for lane in range(7) if (moment + lane) % (lane + 2) or lane < 4]
        for lane in lanes:
            if lane not in alive:
                first_rows.append(behavior.log.num_rows + lanes.index(lane))
                alive.add(lane)
        ask(behavior, lanes, moment)
        if moment == 11:
            behavior.abandon(np.array([3, 5]))
            alive -= {3, 5}
        over = [lane for lane in sorted(alive) if (moment + 1) % (4 + 2 * lane) == 0]
        for lane in over:
            end(behavior, [lane], moment + 1, truncated=lane % 2 == 0)
            alive.remove(lane)
    return first_rows


def rollout_of(behavior: Behavior, sequence_length: int) -> Rollout:
    rollout, reward = take(behavior.log, 9, CPU, sequence_length)
    return Rollout(
        **{
            name: getattr(rollout, name)
            for name in Rollout.__dataclass_fields__
            if name != "rewards"
        },
        rewards=reward.unsqueeze(1),
    )


def test_agents_begin_with_nothing_and_only_then(tmp_path: Path) -> None:
    behavior = build(tmp_path, {"memory_size": 8})
    first_rows = crowd_lives(behavior)
    assert len(first_rows) > 12
    begins = ~behavior.log.tensors["memory"][: behavior.log.num_rows].any(dim=1)
    assert begins.nonzero()[:, 0].tolist() == first_rows
    behavior.begin_anew(np.arange(7))
    ask(behavior, [6, 0], 30)
    assert not behavior.log.tensors["memory"][:2].any()


def test_what_an_agent_remembers_is_its_own_and_of_this_episode(tmp_path: Path) -> None:
    """Every agent of a crowd acts as it would alone, in a lane that nobody had before it."""
    settings: dict[str, Any] = {"actions": (2, (3,)), "deterministic": True}
    behavior = build(tmp_path / "crowd", {"memory_size": 8}, **settings)
    alone = build(tmp_path / "alone", {"memory_size": 8}, **settings)
    for lives in range(2):
        crowd = [ask(behavior, [4, 1, 2], moment) for moment in range(5)]
        for row, lane in enumerate([4, 1, 2]):
            # Another lane number, but the same sights.
            for moment in range(5):
                seen = columns([lane], moment) | {"lane": np.array([100 + 10 * lives + lane])}
                mask = np.ones((1, 3), np.bool_)
                (own,) = alone.decide([Decisions(**seen, action_mask=mask)])
                np.testing.assert_allclose(
                    own.continuous[0], crowd[moment].continuous[row], atol=1e-6
                )
                assert own.discrete[0].tolist() == crowd[moment].discrete[row].tolist()
        end(behavior, [1, 2, 4], 5)


def evaluated(policy: ActorCritic, rollout: Rollout, sequences: Sequences) -> Tensor:
    with torch.no_grad():
        return policy.evaluate(
            policy.inputs(rollout.obs),
            rollout.action_mask,
            rollout.continuous,
            rollout.discrete,
            sequences,
        ).log_probs


@pytest.mark.parametrize("sequence_length", [1, 2, 4, 64])
@pytest.mark.parametrize("shared_critic", [False, True])
def test_probabilities_are_those_of_acting_while_the_weights_are_the_same(
    tmp_path: Path, shared_critic: bool, sequence_length: int
) -> None:
    behavior = build(tmp_path, {"memory_size": 8}, shared_critic=shared_critic)
    crowd_lives(behavior)
    rollout = rollout_of(behavior, sequence_length)
    assert rollout.sequences is not None
    found = evaluated(behavior.policy, rollout, rollout.sequences)
    # float32, added up in another order
    torch.testing.assert_close(found, rollout.log_probs, rtol=0, atol=1e-5)
    if sequence_length < 64:  # what was stored counts
        sequences = rollout.sequences
        empty = Sequences(sequences.starts, 0 * sequences.memory, sequence_length)
        without = evaluated(behavior.policy, rollout, empty)
        assert (without - rollout.log_probs).abs().max() > 1e-3


def test_first_minibatch_of_an_update_has_ratios_of_one(tmp_path: Path) -> None:
    behavior = build(tmp_path, {"memory_size": 8, "sequence_length": 4}, num_epoch=1)
    crowd_lives(behavior)
    rollout = rollout_of(behavior, 4)
    assert rollout.sequences is not None
    # One minibatch of all sequences: ratios are taken before the only step.
    whole = behavior.algorithm.settings.model_copy(  # type: ignore[attr-defined] # it is PPO
        update={"batch_size": 4 * len(rollout.sequences)}
    )
    behavior.algorithm.settings = whole  # type: ignore[attr-defined] # likewise
    statistics = behavior.algorithm.update(rollout, 0).statistics
    assert statistics["Policy/KL"].item() == pytest.approx(0.0, abs=1e-8)
    assert statistics["Policy/Clip Fraction"].item() == 0.0


@pytest.mark.parametrize("sequence_length", [1, 3, 64])
@pytest.mark.parametrize("shared_critic", [False, True])
def test_values_are_those_of_a_critic_that_walked_along(
    tmp_path: Path, shared_critic: bool, sequence_length: int
) -> None:
    behavior = build(tmp_path, {"memory_size": 8}, shared_critic=shared_critic)
    crowd_lives(behavior)
    policy = behavior.policy
    policy.critic_body.rows_at_once = 10  # in several pieces
    log = behavior.log
    first_rows = [not row.any() for row in log.tensors["memory"][: log.num_rows]]
    stored = {tuple(obs.tolist()): i for i, obs in enumerate(log.obs_tensors[0][: log.num_rows])}
    rollout = rollout_of(behavior, sequence_length)
    with torch.no_grad():
        inputs, following = policy.inputs(rollout.obs), policy.inputs(rollout.bootstrap_obs)
        values, bootstrap = ask_critic(policy, rollout, inputs, following)
        assert policy.critic_memory is not None
        carried = torch.zeros(1, 8)
        for i, (start, stop) in enumerate(pairwise(rollout.segment_starts.tolist())):
            if first_rows[stored[tuple(rollout.obs[0][start].tolist())]]:
                carried = torch.zeros(1, 8)  # else the segment before was cut, and goes on
            seen = torch.cat([rollout.obs[0][start:stop], rollout.bootstrap_obs[0][i : i + 1]])
            expected = []
            for obs in seen:
                features = policy.critic_body(policy.inputs([obs.unsqueeze(0)]))
                before = carried
                read, carried = policy.critic_memory.step(features, carried)
                expected.append(policy.value_head(read)[0, 0].item())
            carried = before  # what follows was only looked at
            torch.testing.assert_close(
                values[start:stop, 0].tolist(), expected[:-1], rtol=0, atol=1e-5
            )
            assert bootstrap[i, 0].item() == pytest.approx(expected[-1], abs=1e-5)


def test_state_goes_on_through_an_update_and_rows_that_wait_keep_theirs(tmp_path: Path) -> None:
    behavior = build(tmp_path, {"memory_size": 8, "sequence_length": 4}, buffer_size=64)
    for moment in range(8):
        ask(behavior, list(range(10)), moment)
    waiting = behavior.log.tensors["memory"][70:80].clone()
    assert behavior.is_ready_to_learn
    behavior.learn()
    assert behavior.log.num_rows == 10
    assert torch.equal(behavior.log.tensors["memory"][:10], waiting)
    ask(behavior, list(range(10)), 8)
    assert behavior.log.tensors["memory"][10:20].any(dim=1).all()


def test_another_memory_size_is_another_network(tmp_path: Path) -> None:
    first = build(tmp_path / "first", {"memory_size": 8})
    state = first.state_dict()
    again = build(tmp_path / "again", {"memory_size": 8, "sequence_length": 7}, state=state)
    for name, tensor in first.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], tensor)
    for memory in ({"memory_size": 6}, None):
        with pytest.raises(BehaviorMismatchError, match="network does not fit"):
            build(tmp_path / str(memory), memory, state=state)


CROWDED = {
    "visual": (image(3, 20, 24),),
    "several": (vector(4), image(1, 20, 20, dtype="float32"), entities(3, 2)),
    "goal": (vector(3, "goal", is_goal=True), image(3, 20, 20), vector(2)),
}


@pytest.mark.parametrize("sensors", CROWDED)
@pytest.mark.parametrize("shared_critic", [False, True])
def test_memory_stands_behind_any_body(sensors: str, shared_critic: bool, tmp_path: Path) -> None:
    """Three agents decide four times, in torch and in onnxruntime, which decides in a run.

    Learning then reads the same from each one's sequence.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = behavior_spec(*CROWDED[sensors], continuous=2, branches=(3,))
    network = NetworkSettings(
        hidden_units=16, num_layers=1, normalize=True, memory=MemorySettings(memory_size=6)
    )
    policy = ActorCritic("Crab", spec, network, 1, shared_critic)
    policy.update_normalizer(random_obs(spec, 50))
    chance = torch.Generator().manual_seed(1)
    compiled = CompiledPolicy(policy, seed=1)
    memory = torch.randn(3, policy.memory_width)
    steps, sights, before = [], [], memory
    for step in range(4):
        sights.append(random_obs(spec, 3, seed=step))
        with torch.no_grad():
            inputs = policy.inputs(sights[-1])
        steps.append(policy.act(inputs, None, chance, memory=memory))
        likeliest = policy.act(inputs, None, chance, True, memory)
        columns = [column.numpy() for column in sights[-1]]
        everything = np.ones((3, 3), np.bool_)
        found = compiled.act(columns, everything, True, memory.numpy())
        for name in ("continuous", "discrete", "log_probs", "memory"):
            expected = getattr(likeliest, name)
            torch.testing.assert_close(getattr(found, name), expected, rtol=0, atol=1e-5)
        memory = steps[-1].memory  # type: ignore[assignment] # a policy with memory gives it

    def by_agent(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=1).flatten(0, 1)  # 4 x (3, any) -> (12, any)

    sequences = Sequences(torch.tensor([0, 4, 8, 12]), before, 4)
    with torch.no_grad():
        read = policy.evaluate(
            policy.inputs([by_agent(column) for column in zip(*sights, strict=True)]),
            None,
            by_agent([step.continuous for step in steps]),
            by_agent([step.discrete for step in steps]),
            sequences,
        )
    drawn = by_agent([step.log_probs for step in steps])
    torch.testing.assert_close(read.log_probs, drawn, rtol=0, atol=1e-5)
    assert export(policy, spec, tmp_path / "Crab.onnx").max_difference < LIMIT


# --- learning -------------------------------------------------------------------------------------


def recalled(behavior: Behavior, num_updates: int) -> float:
    """Trains on recall; gives the mean reward of the last rollouts, from -1 to 1.

    An agent sees a sign at its first decision and nothing at two more; the reward comes with the
    third and is 1 if its action has that sign, else -1.
    """
    chance = np.random.default_rng(0)
    lanes = list(range(32))
    earned: list[float] = []
    while behavior.num_updates < num_updates:
        signs = chance.choice([-1.0, 1.0], len(lanes)).astype(np.float32)
        for moment in range(3):
            sight = np.stack([signs * (moment == 0), np.ones(len(lanes), np.float32)], axis=1)
            (answer,) = behavior.decide([Decisions(**columns(lanes, 0) | {"obs": (sight,)})])
        reward = np.where(answer.continuous[:, 0] * signs > 0, 1.0, -1.0).astype(np.float32)
        flags = np.zeros(len(lanes), np.bool_)
        behavior.end([Terminals(**columns(lanes, 0) | {"reward": reward}, truncated=flags)])
        earned.append(float(reward.mean()))
        if behavior.is_ready_to_learn:
            behavior.learn()
    return float(np.mean(earned[-10:]))


RECALL: dict[str, Any] = {"actions": (1, ()), "buffer_size": 288, "num_epoch": 4, "beta": 1e-3}


@pytest.mark.parametrize("shared_critic", [False, True])
def test_recall_is_learned_with_memory(tmp_path: Path, shared_critic: bool) -> None:
    memory = {"memory_size": 16, "sequence_length": 3}
    behavior = build(tmp_path, memory, shared_critic=shared_critic, **RECALL)
    assert recalled(behavior, 25) > 0.8


def test_recall_is_not_learned_without(tmp_path: Path) -> None:
    assert abs(recalled(build(tmp_path, None, **RECALL), 25)) < 0.2
