"""Updates that break the numbers: nobody acts with them, nothing saves them, all of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest import approx

from envs.batch import Decisions, Terminals
from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.algos.ppo import PPO
from trainer.behavior import Behavior
from trainer.config.settings import BehaviorSettings
from trainer.divergence import DivergedError

SPEC = BehaviorSpec(
    [ObservationSpec((2,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes")], ActionSpec(1, ())
)
CROWD = 8
HUGE = 1e30  # finite, as the simulator's door lets it in; its square is not
Make = Callable[..., Behavior]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    torch.set_num_threads(1)
    made: list[Behavior] = []

    def build(
        state: dict[str, object] | None = None,
        learning_rate: float = 0.01,
        starts_at_zero: bool = False,
        memory: bool = False,
    ) -> Behavior:
        network: dict[str, object] = {"hidden_units": 8, "num_layers": 1, "normalize": True}
        if memory:
            network["memory"] = {"memory_size": 4, "sequence_length": 4}
        settings = {
            "hyperparameters": {
                "batch_size": 16,
                "buffer_size": 32,
                "learning_rate": learning_rate,
                "learning_rate_schedule": "constant",
            },
            "network_settings": network,
        }
        behavior = Behavior(
            "Crab",
            SPEC,
            BehaviorSettings.model_validate(settings),
            tmp_path / str(len(made)),
            seed=3,
            device=torch.device("cpu"),
            is_training=True,
            state=state,
            starts_at_zero=starts_at_zero,
        )
        made.append(behavior)
        return behavior

    yield build
    for behavior in made:
        behavior.metrics.close()


def columns(step: int, reward: float) -> dict[str, object]:
    lanes = np.arange(CROWD)
    zeros = np.zeros(CROWD, np.int32)
    sight = np.stack([np.sin(lanes + step), np.cos(lanes * step)], axis=1).astype(np.float32)
    return {
        "obs": (sight,),
        "reward": np.full(CROWD, reward, np.float32),
        "lane": lanes,
        "agent_id": zeros,
        "simulator": zeros,
        "team": zeros,
        "group_id": zeros,
        "group_reward": np.zeros(CROWD, np.float32),
    }


def collect(behavior: Behavior, reward: float = 1.0) -> None:
    for step in range(4):
        behavior.decide([Decisions(**columns(step, reward))])  # type: ignore[arg-type]  # columns
    ended = columns(4, reward)
    behavior.end([Terminals(**ended, truncated=np.zeros(CROWD, np.bool_))])  # type: ignore[arg-type]  # columns


def adam_of(behavior: Behavior) -> dict[str, torch.Tensor]:
    """The very averages that Adam works with."""
    assert isinstance(behavior.algorithm, PPO)
    moments: dict[str, torch.Tensor] = behavior.algorithm.optimizers[
        "optimizer"
    ]._optimizer.state_dict()["state"][0]
    return moments


def everything(behavior: Behavior) -> dict[str, torch.Tensor]:
    """Weights, normaliser, Adam's averages and the order of minibatches."""
    found = {name: value.clone() for name, value in behavior.policy.state_dict().items()}
    state = behavior.algorithm.state_dict()
    optimizer = state["optimizer"]
    assert isinstance(optimizer, dict)
    found |= {f"adam.{key}": value for key, value in optimizer["state"][0].items()}
    generator = state["generator"]
    assert isinstance(generator, torch.Tensor)
    return {**found, "generator": generator}


def require_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("broken", ["loss", "weights", "normalizer", "optimizer"])
def test_update_that_breaks_is_as_if_it_had_never_been(
    make: Make, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behavior = make()
    collect(behavior)
    assert behavior.learn() is None
    before = everything(behavior)
    if broken != "loss":
        learn = behavior.policy.update_normalizer

        def spoil(obs: tuple[torch.Tensor, ...]) -> None:
            learn(obs)
            assert behavior.policy.normalizer is not None
            parts = {
                "weights": behavior.policy.value_head.bias.data,
                "normalizer": behavior.policy.normalizer.mean,
                "optimizer": adam_of(behavior)["exp_avg_sq"],
            }
            parts[broken].view(-1)[-1] = float("inf")

        monkeypatch.setattr(behavior.policy, "update_normalizer", spoil)
    collect(behavior, HUGE if broken == "loss" else 1.0)
    divergence = behavior.learn()
    monkeypatch.undo()
    assert divergence is not None
    require_equal(everything(behavior), before)
    assert behavior.is_sound
    assert behavior.num_updates == 1
    assert behavior.log.num_complete == 0  # its decisions are not learnt from again
    # What it would have said of itself is in no curve.
    assert all(np.isfinite(value) for value in behavior.metrics.write(64).values())

    collect(behavior)
    assert behavior.learn() is None
    for name, tensor in everything(behavior).items():
        assert torch.isfinite(tensor).all(), name
    assert behavior.num_updates == 2


def test_learning_rate_is_a_tenth_from_then_on(make: Make) -> None:
    behavior = make(learning_rate=0.01)
    collect(behavior, HUGE)
    divergence = behavior.learn()
    assert divergence is not None
    assert divergence.learning_rate == approx(0.001)
    assert behavior.algorithm.rates(0)["Policy/Learning Rate"] == approx(0.001)
    # Adam's first step is as long as the learning rate, whatever the gradient: the smaller rate
    # really reaches the weights. 3 epochs of 2 minibatches.
    bias = behavior.policy.value_head.bias
    start = bias.item()
    collect(behavior)
    behavior.learn()
    assert 0.001 <= abs(bias.item() - start) <= 6 * 0.001


def test_second_time_stops_with_the_good_weights(make: Make) -> None:
    behavior = make()
    collect(behavior, HUGE)
    assert behavior.learn() is not None
    collect(behavior)
    behavior.learn()
    before = everything(behavior)
    collect(behavior, HUGE)
    with pytest.raises(DivergedError, match="diverged for the second time: after update 2") as it:
        behavior.learn()
    assert it.value.exit_code == 5
    require_equal(everything(behavior), before)
    assert behavior.is_sound  # so the run saves it
    assert len(list(behavior.folder.glob("diverged-*.pt"))) == 2


@pytest.mark.parametrize("memory", [False, True])
def test_dump_holds_what_was_learnt_from(make: Make, memory: bool) -> None:
    behavior = make(memory=memory)
    collect(behavior, HUGE)
    weights = everything_of_policy(
        make(memory=memory)
    )  # nothing was learnt before: the first weights
    divergence = behavior.learn()
    assert divergence is not None
    assert divergence.dump == behavior.folder / "diverged-32.pt"
    assert f"rollout lies in {divergence.dump}" in divergence.text
    found = torch.load(divergence.dump, weights_only=True)
    assert found["rollout"]["rewards"].tolist() == [[pytest.approx(HUGE)]] * 32
    assert found["rollout"]["obs"][0].shape == (32, 2)
    assert found["rollout"]["terminated"].tolist() == [True] * CROWD
    assert ("sequence_memory" in found["rollout"]) == memory
    assert found["not_finite"] == divergence.what
    for name, tensor in found["policy_before"].items():
        assert torch.equal(tensor, weights[name]), name


def test_dump_that_cannot_be_written_changes_nothing_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    behavior = make()
    before = everything_of_policy(behavior)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.divergence.atomic_write", full)
    collect(behavior, HUGE)
    divergence = behavior.learn()
    assert divergence is not None
    assert divergence.dump is None
    assert "could not be written ([Errno 28] No space left on device)" in divergence.text
    require_equal(everything_of_policy(behavior), before)


def everything_of_policy(behavior: Behavior) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in behavior.policy.state_dict().items()}


def test_lowered_rate_survives_a_resume_until_the_user_changes_it(make: Make) -> None:
    behavior = make(learning_rate=0.01)
    collect(behavior, HUGE)
    behavior.learn()
    state = behavior.state_dict()

    def rate(behavior: Behavior) -> float:
        return behavior.algorithm.rates(0)["Policy/Learning Rate"]

    resumed = make(state, learning_rate=0.01)
    assert rate(resumed) == approx(0.001)
    require_equal(everything_of_policy(resumed), everything_of_policy(behavior))
    collect(resumed, HUGE)
    with pytest.raises(DivergedError):
        resumed.learn()
    assert rate(make(state, learning_rate=0.004)) == approx(0.004)
    assert rate(make(state, learning_rate=0.01, starts_at_zero=True)) == approx(0.01)
    assert make(state, starts_at_zero=True).learning_rate_factor == 1.0


def test_update_that_raises_in_its_middle_is_taken_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    behavior = make()
    collect(behavior)
    behavior.learn()
    before = everything(behavior)
    collect(behavior)

    def fail(obs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(behavior.policy, "update_normalizer", fail)  # all epochs are over by then
    with pytest.raises(ZeroDivisionError):
        behavior.learn()
    require_equal(everything(behavior), before)
    assert behavior.is_sound
    assert behavior.num_updates == 1
